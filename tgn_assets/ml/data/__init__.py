"""The interactions, node attributes and publication rules that models read."""
