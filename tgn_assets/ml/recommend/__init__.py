"""From a trained ranker to published lists: top k, users without a history, publication and its checks."""
