"""Array kernels that know nothing of recommendations: sparse products, top-k, per-user statistics."""
