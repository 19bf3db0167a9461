"""Files of a run: its folder, checkpoints, logs and scores."""
