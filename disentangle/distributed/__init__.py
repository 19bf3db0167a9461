"""Reductions, gathering and sharded parameters over several processes."""
