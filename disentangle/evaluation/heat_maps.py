"""Heat maps of which code goes with which factor, as files."""

from collections.abc import Mapping
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from disentangle.evaluation.representations import Target
from disentangle.runs.scores_file import Score

# name of the file: its title, and where the matrix (K, F) stands, in the order of preference
MAPS = {
    "mutual-information": (
        "mutual information, in nats",
        [("mig", "mutual_information"), ("modularity", "mutual_information")],
    ),
    "dci-importance": (
        "importance for predicting the factor (DCI)",
        [("dci", "importance"), ("histogram_dci", "importance")],
    ),
}

MOST_CODES = 300  # rows of a picture that can still be opened
LINE = 11  # characters of a factor's name that fit below a column


def write_heat_maps(folder: Path, target: Target, scores: Mapping[str, Score]) -> list[Path]:
    """Draw the matrices that are among the scores, of up to `MOST_CODES` codes.

    Args:
        folder: Folder of the files, made if there is anything to draw.
        target: Target that was scored.
        scores: Scores by the name of the metric.

    Returns:
        The files.
    """
    files, suffix = [], target.suffixes.get("codes", "")
    for name, (title, places) in MAPS.items():
        found = [
            (metric, scores[metric + suffix].details[key])
            for metric, key in places
            if metric + suffix in scores and key in scores[metric + suffix].details
        ]
        if not found or len(found[0][1]) > MOST_CODES:
            continue
        metric, matrix = found[0]
        mark = "-fitted-encoder" if suffix else ""
        file = folder / f"{name}{mark}.png"
        folder.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # it could be a link to anything
        means = ", histograms" if metric == "histogram_dci" else ""
        file.write_bytes(_draw(matrix, target, f"{title}{means}{suffix}"))
        files.append(file)
    return files


def is_too_tall(metric: str, details: Mapping[str, Any]) -> bool:
    """Return True if a metric has a matrix with too many codes for a heat map."""
    keys = [key for _, places in MAPS.values() for name, key in places if name == metric]
    return any(len(details[key]) > MOST_CODES for key in keys if key in details)


def _draw(matrix: np.ndarray, target: Target, title: str) -> bytes:
    from disentangle.output.figures import draw_heat_map, encode_figure  # matplotlib takes a moment

    rows = target.points.code_names
    columns = [fill(name, LINE) for name in target.points.factor_names]
    return encode_figure(draw_heat_map(matrix, rows=rows, columns=columns, title=title), "png")
