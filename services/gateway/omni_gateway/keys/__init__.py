"""Who may ask, and how much: the keys of a file, the limits of each, and the door that they open."""
