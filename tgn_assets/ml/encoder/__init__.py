"""The graph encoder (asset `trained_gnn`): a GraphSAGE network and linear link regressions."""
