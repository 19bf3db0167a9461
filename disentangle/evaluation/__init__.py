"""What `disentangle evaluate` scores, by which metrics, and what it keeps of it.

What is scored: `target`, `run_subject`, `points`, `encoding`, `looking`, `draws`, `feature_sets`.
By which metrics: `registry`, `inputs`, `choice`, `options`, and `rehearsal` of the options.
The work: `job`, `processes`, `failures`, `progress`.
What is kept: `report`, `summary`, `heat_maps`.
"""
