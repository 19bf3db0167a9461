"""One page with everything in it: pictures, numbers, style and script."""

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
    """Which code goes with which factor.

    Attributes:
        title: What the numbers are.
        rows: `K` names of codes.
        columns: `F` names of factors.
        values: `K` lists of `F` numbers from 0 up; None where there is none.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]


@dataclass(frozen=True)
class PageRun:
    """What the page shows of a run. Pictures are data URIs.

    Attributes:
        name: Above everything.
        width: Of an image, in pixels.
        height: Of an image, in pixels.
        axes: For each axis its `group` and `name`.
        strips: For each sample and each axis the images of all values side by side.
        starts: For each sample the image that the axes start from.
        originals: Names and images that are shown beside the start.
        scores: Names and values; None is a score that is not defined.
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
    """The HTML of a page that loads nothing: neither a network nor a server is needed.

    Its content security policy forbids everything but the page's own style, script and pictures,
    which stand in it. Names may hold any characters: they are shown as they are.

    Args:
        runs: At least one, with as many samples each.
        values: `V` names of the positions of a slider.
        middle: Index of the one that sliders start at.

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
            "at least one run is needed, all with as many samples, got "
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
    """Text for HTML; a file's name can hold bytes that are no text, which are shown as `?`."""
    return html.escape(text).encode("utf-8", "replace").decode("utf-8")


def _embed(content: object) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    """What the policy calls a style or script, so that no other one is obeyed."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _read(name: str) -> str:
    return files("disentangle.explorer").joinpath(name).read_text(encoding="utf-8")
