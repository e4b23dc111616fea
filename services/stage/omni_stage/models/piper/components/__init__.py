"""The part that computes, and that knows what a Piper voice is."""
