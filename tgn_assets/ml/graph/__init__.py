"""A week, and a window of weeks, as a bipartite graph; batches of its nodes and links with their neighbours."""
