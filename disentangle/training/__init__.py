"""Training with Accelerate: the loop that all tasks share, and one package per task."""
