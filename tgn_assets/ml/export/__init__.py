"""Copies of a published week outside the warehouse."""
