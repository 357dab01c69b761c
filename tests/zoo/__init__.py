"""Small training programs with a planted fault or none: by them the checks are measured (``python -m tests.zoo``).

``program`` says what a program is, ``data`` and ``networks`` hold what several of them use, ``collection`` lists them
all. ``judging`` runs one, ``pool`` many of them in child processes, ``score`` and ``left_out`` turn rows into tables.
"""
