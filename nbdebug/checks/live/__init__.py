"""Checks while training goes on, from what was recorded, and from a look at the model where that does not suffice."""
