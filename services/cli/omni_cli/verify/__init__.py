"""`omni verify`: the canary that speaks. Everything that a mesh serves is tried with a real utterance.

`utterance.wav` is tests/media/greeting.wav, whose README says where it comes from.
"""
