"""What `disentangle evaluate` scores, by which metrics, and what it keeps of it."""
