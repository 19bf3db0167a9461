"""How fast things are: `python -m tests.benchmarks [NAME …]` from the root of the repository."""
