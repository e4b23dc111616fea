"""Piper: text to speech with any voice of the Piper project, by onnxruntime alone; no torch anywhere."""
