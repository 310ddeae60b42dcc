"""Fuzzing of what reads the wire."""
