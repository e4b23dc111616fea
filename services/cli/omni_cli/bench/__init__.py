"""`omni bench`: measures parts of the mesh on this machine."""
