"""The checks before training, one a file: each has a ``CHECK``, and is found by that."""
