"""A week, and a window of weeks, as a bipartite graph; neighbour sampling that respects time."""
