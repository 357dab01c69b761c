"""Breakpoints: the language of their conditions, which reads signals and nothing else."""
