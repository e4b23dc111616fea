"""Speech for callers: PCM of the mesh in, the caller's format out."""
