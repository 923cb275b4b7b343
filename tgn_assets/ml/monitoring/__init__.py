"""Drift and trends over the weeks, and the limits at which they warn."""
