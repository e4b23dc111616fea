"""The mesh on one machine: what to start, how to start it, how to keep it running, how to leave nothing behind."""
