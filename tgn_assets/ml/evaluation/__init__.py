"""Baselines, metrics, and the score of a published week."""
