"""The journal: every frame, outcome and finding of every run, in bounded memory."""
