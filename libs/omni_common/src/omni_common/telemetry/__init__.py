"""Metrics, logs and traces: one vocabulary (`names`), one way to write each."""
