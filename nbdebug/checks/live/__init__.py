"""Checks while training goes on, from what was recorded alone."""
