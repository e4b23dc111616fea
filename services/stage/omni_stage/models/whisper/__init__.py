"""Whisper: speech to text. What is said in a recording of any length, with times, in the languages of the weights."""
