"""Graphs, models, ranking and metrics: plain Python that knows nothing of Dagster."""
