"""Compares tgn_assets with other software and measures its growth; docs/performance.md has the figures."""
