"""The stage's pure core: no sockets, clocks, threads or tensors."""
