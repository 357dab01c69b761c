"""The journal: every frame, outcome and finding of every run, in bounded memory, and in a file that outlives it."""
