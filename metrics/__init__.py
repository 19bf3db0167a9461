"""How disentanglement is judged: one metric per file."""
