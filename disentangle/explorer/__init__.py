"""The explorer: a page, or a small server, on which the axes of runs are moved."""
