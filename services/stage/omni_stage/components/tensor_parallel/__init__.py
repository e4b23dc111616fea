"""One model in several processes: each has a part of every attention and expert layer, and all see the same tokens.

`cut` says which part of a tensor is whose, `group` sums what the parts make, `leader` and `following` have the ranks
take the same steps, `message` is what one says to the other, `mirrored_store` has their caches go the same way.
"""
