"""Strict, typed helpers for tests of stages and models."""
