"""The command `tgn`."""
