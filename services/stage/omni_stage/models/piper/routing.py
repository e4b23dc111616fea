"""Where each result goes: there is one edge and nothing to decide, so no stage of Piper has a routing hook."""
