"""Compares tgn_assets with other software and measures its growth; docs/performance.md has the figures."""

from tgn_assets.state.process import prepare_process

prepare_process()
