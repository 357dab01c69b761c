"""What a check is: see :mod:`nbdebug.checks.check`."""

from nbdebug.checks.check import Check, Say, Skip

__all__ = ["Check", "Say", "Skip"]
