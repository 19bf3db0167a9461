"""What a run writes, and who may write it: folder, checkpoints, logs."""
