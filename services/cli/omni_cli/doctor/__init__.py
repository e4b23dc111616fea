"""`omni doctor`: what is wrong with a release on a cluster, in sentences.

`read` asks the API server and `parse` makes `facts` of its JSON; the rules are pure, each from facts to findings.
"""
