"""Writing of the page of a generator to a file."""

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor

from disentangle.explorer.page import HeatMap, PageRun, build_page
from disentangle.explorer.strips import check_strip, encode_images, encode_strips
from disentangle.models import Axis, Generator
from disentangle.output.files import check_file, write_file
from disentangle.traversal import DEFAULT_VALUES, traverse, value_labels
from disentangle.traversal.latents import being_looked_at, choose_starts

ENDINGS = (".html",)


def write_explorer(
    generator: Generator,
    file: str | Path,
    *,
    name: str | None = None,
    axes: Sequence[Axis] | None = None,
    latents: Tensor | None = None,
    samples: int = 4,
    seed: int = 0,
    values: Sequence[float] | Tensor = DEFAULT_VALUES,
    originals: Mapping[str, Tensor] | None = None,
    scores: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a page with a slider for every axis of a generator.

    The page is a single file that needs neither a network nor a server.

    Args:
        generator: Any `Generator`; `disentangle.adapters.adapt` makes one of a foreign model.
        file: File of the page; ends in `.html`.
        name: Title of the page; by default the name of the file without its ending.
        axes: Axes that get a slider; by default all of the generator.
        latents: Base latents `(S, D)`; by default draws from the prior.
        samples: Number of draws.
        seed: Seed for the draws.
        values: Positions along each axis, in its standard deviations.
        originals: Images `(C, H, W)` in `[-1, 1]` to show beside the start, by name.
        scores: Numbers to show, by name; NaN and infinity are shown as undefined.
        overwrite: Replace an existing file.

    Returns:
        The file.

    Raises:
        FileExistsError: If the file exists and `overwrite` is False.
        ValueError: If the file has another ending or cannot be written, or as `traverse` and
            `encode_strips`.

    Examples:
        >>> import tempfile
        >>> from disentangle.models import SubspaceVAE
        >>> model = SubspaceVAE(image_size=32, code_dim=3, base_channels=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_explorer(model, f"{folder}/page.html", values=[-2, 0, 2]).name
        'page.html'
    """
    file = Path(file)
    check_file(file, overwrite=overwrite, endings=ENDINGS)
    with being_looked_at(generator):
        run = picture_run(
            file.stem if name is None else name,
            generator.decode,
            choose_starts(generator, latents, samples=samples, seed=seed),
            generator.axes if axes is None else axes,
            values=values,
            originals=originals or {},
            scores=[(k, v if isfinite(v) else None) for k, v in (scores or {}).items()],
        )
    write_page([run], file, values=values, overwrite=overwrite)
    return file


def picture_run(
    name: str,
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    axes: Sequence[Axis],
    *,
    values: Sequence[float] | Tensor,
    originals: Mapping[str, Tensor],
    scores: Sequence[tuple[str, float | None]] = (),
    maps: Sequence[HeatMap] = (),
) -> PageRun:
    """Draw the content of the page for a generator.

    Args:
        name: Name of the run.
        decode: Maps latents `(N, D)` to images `(N, C, H, W)` in `[-1, 1]`.
        latents: Base latents `(S, D)`, on the device of the decoder.
        axes: Axes that get a slider.
        values: Positions along each axis, in its standard deviations.
        originals: Images `(C, H, W)` to show beside the start, by name.
        scores: Names and values of scores; None for an undefined score.
        maps: Heat maps.
    """
    with torch.no_grad():
        starts = torch.cat([decode(z[None]) for z in latents])
    # check before the work of a traversal would be lost
    check_strip(torch.as_tensor(values).numel(), starts.shape[-1])
    frames = traverse(decode, latents, axes, values=values)
    return PageRun(
        name=name,
        width=frames.shape[5],
        height=frames.shape[4],
        axes=[{"group": axis.group, "name": axis.name} for axis in axes],
        strips=encode_strips(frames),
        starts=encode_images(starts),
        originals=[(name, encode_images(image[None])[0]) for name, image in originals.items()],
        scores=scores,
        maps=maps,
    )


def write_page(
    runs: Sequence[PageRun],
    file: Path,
    *,
    values: Sequence[float] | Tensor,
    overwrite: bool,
) -> None:
    """Write the page of one or more runs that share the values of their sliders."""
    middle = int(torch.as_tensor(values).abs().argmin())
    page = build_page(runs, value_labels(values), middle)
    write_file(file, page.encode(), overwrite=overwrite)
