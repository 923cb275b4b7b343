"""Speed beside other software."""
