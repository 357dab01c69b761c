"""Rules that name what is wrong with a training run: before it begins (preflight) and while it goes on (live)."""
