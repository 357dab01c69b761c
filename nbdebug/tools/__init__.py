"""What is worked out beside the training: comparisons of runs."""
