"""The checks while training goes on, one a file: each has a ``CHECK``, and is found by that."""
