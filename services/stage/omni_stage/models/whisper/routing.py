"""Where each result goes: every request takes the whole line of `config.py`, so there is nothing to decide."""
