"""Strict, typed stand-ins for tests: each keeps the contract of what it stands for."""
