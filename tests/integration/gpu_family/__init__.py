"""A family of two stages, for tests: one makes tensors on its GPU, the next says what came."""
