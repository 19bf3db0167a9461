"""Curves of runs over steps: what the commands that plot them share."""

from disentangle.curves.merging import group_runs, merge_runs, name_curve
from disentangle.curves.output import add_output_arguments, choose_file, write_picture
from disentangle.runs.metrics_log import collect_values

__all__ = [
    "add_output_arguments",
    "choose_file",
    "collect_values",
    "group_runs",
    "merge_runs",
    "name_curve",
    "write_picture",
]
