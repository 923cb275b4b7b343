"""Logs for the benchmarks: generated ones, and those that Python packages bring along."""
