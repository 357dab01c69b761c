"""Training: the trainer, the loop it stands for, the session that runs it, knobs, snapshots and random states."""
