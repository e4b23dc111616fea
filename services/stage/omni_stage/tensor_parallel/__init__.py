"""A stage whose model is spread over several processes, the ranks: rank 0 is the stage itself, the others follow it.

Rank 0 starts them, tells each what to do over a line of its own, and ends with the first of them that ends. What they
compute together is the model's: see `components.tensor_parallel`. No tensor library is imported here.
"""
