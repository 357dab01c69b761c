"""Checks before training and on its first steps, each a short file; see :mod:`nbdebug.checks.preflight.look`."""
