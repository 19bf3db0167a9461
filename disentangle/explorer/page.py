"""Self-contained HTML page of pictures, numbers, style and script."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from string import Template


@dataclass(frozen=True)
class HeatMap:
    """Heat map of codes and factors.

    Attributes:
        title: Title of the heat map.
        rows: `K` names of codes.
        columns: `F` names of factors.
        values: `K` lists of `F` non-negative numbers; None for an undefined one.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class PageRun:
    """Content of the page for a run. Pictures are data URIs.

    Attributes:
        name: Name of the run.
        width: Width of an image, in pixels.
        height: Height of an image, in pixels.
        axes: `group` and `name` of each axis.
        strips: For each sample and each axis, the images of all values side by side.
        starts: For each sample, the image of its latent before an axis moves.
        originals: Names and images to show beside the start.
        scores: Names and values of scores; None for an undefined score.
        maps: Heat maps.
    """

    name: str
    width: int
    height: int
    axes: Sequence[dict[str, str]]
    strips: Sequence[Sequence[str]]
    starts: Sequence[str]
    originals: Sequence[tuple[str, str]] = ()
    scores: Sequence[tuple[str, float | None]] = ()
    maps: Sequence[HeatMap] = ()


def build_page(runs: Sequence[PageRun], values: Sequence[str], middle: int) -> str:
    """Return the HTML of a page that needs neither a network nor a server.

    Its content security policy forbids everything but the page's own inline style, script and
    pictures. Names may contain any characters: they are shown as they are.

    Args:
        runs: Runs to show, at least one, all with the same number of samples.
        values: `V` names of the positions of a slider.
        middle: Index of the position that sliders start at.

    Raises:
        ValueError: If there is no run, or the runs differ in their number of samples.

    Examples:
        >>> pixel = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
        >>> run = PageRun("<b>", 1, 1, [{"group": "codes", "name": "a"}], [[pixel]], [pixel])
        >>> page = build_page([run], ["0"], 0)
        >>> "<title>&lt;b&gt;</title>" in page, "<b>" in page
        (True, False)
    """
    if not runs or len({len(run.starts) for run in runs}) > 1:
        raise ValueError(
            "at least one run is needed, all with the same number of samples, got "
            f"{[len(run.starts) for run in runs]}"
        )
    style, script, page = (_read(name) for name in ("style.css", "script.js", "page.html"))
    content = {"runs": [asdict(run) for run in runs], "values": list(values), "middle": middle}
    policy = (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(page).substitute(
        policy=policy,
        title=_escape(" and ".join(run.name for run in runs)),
        style=style,
        script=script,
        data=_embed(content),
    )


def _escape(text: str) -> str:
    """Escape text for HTML; undecodable bytes of a file name become `?`."""
    return html.escape(text).encode("utf-8", "replace").decode("utf-8")


def _embed(content: object) -> str:
    """Return JSON that cannot close the HTML element that contains it."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    """Return the hash by which the content security policy allows a style or script."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _read(name: str) -> str:
    return files("disentangle.explorer").joinpath(name).read_text(encoding="utf-8")
