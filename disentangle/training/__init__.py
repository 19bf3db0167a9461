"""The Accelerate loop that every task shares, and one file per task."""
