"""Echo: a whole pipeline without a model. It says the caller's last message back, in capitals and as tones.

It has everything that a real model's folder has, in the same files, and needs no tensor library: start a new model
from it, and test the mesh with it.
"""
