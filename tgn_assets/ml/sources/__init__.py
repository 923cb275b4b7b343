"""Reads a log of interactions, wherever it lies, as validated rows."""
