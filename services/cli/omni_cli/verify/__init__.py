"""`omni verify`: the canary that speaks. Everything that a mesh serves is tried with a real utterance."""
