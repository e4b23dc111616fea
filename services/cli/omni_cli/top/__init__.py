"""`omni top`: what the processes of a mesh do just now, from the metrics that each of them serves."""
