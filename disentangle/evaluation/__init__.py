"""Scores of runs and of codes.

Targets: `target`, `generator_target`, `classifier_target`, and `representations` for codes.
Metrics: `registry`, `inputs`, `selection`, and `rehearsal` of their options.
Work: `planning`, `runner`, `processes`, `progress`.
Results: `summary`, `comparison`, `heat_maps`; the file itself is `runs/scores_file.py`.
"""
