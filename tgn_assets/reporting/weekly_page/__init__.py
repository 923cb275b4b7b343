"""The weekly report: one HTML page about a week (`reporting.terminal` prints the report of a terminal)."""
