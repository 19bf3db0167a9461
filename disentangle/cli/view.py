"""The view of a generator: options of the commands that draw its axes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor, nn

from disentangle.adapters import load_generator_from
from disentangle.cli.common import add_sefa_arguments, pick_device
from disentangle.data import scale_pixels
from disentangle.data.images.decoding import Decoder
from disentangle.models import Axis, Encoder, Generator, sefa_axes
from disentangle.models.evaluation_mode import device_of
from disentangle.runs.run import Run
from disentangle.traversal import invert, pick_axes, rank_axes, rank_live_axes

SEFA_AXES = 10  # that are drawn unless told otherwise
MOST = 1000  # steps or samples: a picture of more cannot be looked at
RANKING_LATENTS = 64  # whose images rank the axes
INVERSION_DRAWS = 512  # that an inversion chooses its starts from


class View(NamedTuple):
    """A generator, with axes to move along and latents to start from.

    Attributes:
        model: Generator in evaluation mode, on the device that was asked for.
        axes: Axes to move along.
        latents: Latents to start from, shape `(S, D)`, on the device of the model.
        values: `V` positions along each axis, in standard deviations.
        originals: Images `(C, H, W)` that the latents stand for, with what the model makes of them;
            empty unless an image was given.
        dead: Axes left out, since they hardly change the image.
    """

    model: Generator
    axes: tuple[Axis, ...]
    latents: Tensor
    values: Tensor
    originals: Mapping[str, Tensor]
    dead: tuple[Axis, ...] = ()

    def describe_dead(self) -> str:
        """Return a line that names the axes left out; empty if there are none."""
        names = ", ".join(f"{axis.group}/{axis.name}" for axis in self.dead)
        return f"left out, since they hardly change the image: {names}" if names else ""


def add_view_arguments(parser: ArgumentParser, *, samples: int) -> None:
    """Add the options that choose a view.

    Args:
        parser: Parser of the command.
        samples: Default number of latents to start from.
    """
    parser.add_argument(
        "--generator",
        type=str,
        metavar="FILE.py:NAME",
        help="Generator that has this name when the Python file has run, such as one made by "
        "disentangle.adapters.adapt; in place of a run.",
    )
    parser.add_argument(
        "--axes",
        type=str,
        help="Indices from 0, groups such as 'block 1', or axes such as 'block 1/dimension 2', "
        "with commas between them; default: all.",
    )
    parser.add_argument(
        "--sort",
        action="store_true",
        help="Sort each group, axes that change the image most first; without --axes, leave out "
        "dead ones, which change it by less than 1e-4 of the largest variance.",
    )
    parser.add_argument("--steps", type=int, default=9, help="Values of each axis.")
    parser.add_argument(
        "--range", type=float, default=2.0, help="Largest value, in standard deviations."
    )
    _add_start_arguments(parser, samples)
    add_sefa_arguments(parser)
    parser.add_argument(
        "--sefa_offset", type=int, help="Index of the layer's first latent, if it takes in a part."
    )
    parser.add_argument(
        "--sefa_count", type=int, help=f"Directions of SeFa; default: the first {SEFA_AXES}."
    )
    parser.add_argument(
        "--device",
        type=str,
        help="Default: a GPU if there is one; of --generator, where it is.",
    )


def _add_start_arguments(parser: ArgumentParser, samples: int) -> None:
    parser.add_argument(
        "--samples", type=int, help=f"Latents to start from; default: {samples}, 1 with --image."
    )
    parser.add_argument(
        "--around",
        type=Literal["images", "prior"],
        help="Start from codes of random images of the data set (default for a model with an "
        "encoder) or from draws of the prior.",
    )
    parser.add_argument(
        "--image",
        type=str,
        metavar="FILE",
        help="Start from this image: its code, or without an encoder the latent that gradient "
        "descent finds for it.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Seed for sampling the latents.")
    parser.add_argument(
        "--truncation",
        type=float,
        default=1.0,
        help="Factor for draws of the prior, 0 to 1: smaller ones make more typical, "
        "less varied images. The values along an axis stay as they are.",
    )


def choose_sources(runs: Sequence[str], options: Namespace) -> list[Run | str]:
    """Open the runs; after them comes the generator that the options name, if any.

    Raises:
        FileNotFoundError: If there is no such run.
        ValueError: If there is neither a run nor a generator.
    """
    sources: list[Run | str] = [Run.open(path) for path in runs]
    if options.generator is not None:
        sources.append(options.generator)
    if not sources:
        raise ValueError("expected a run folder, or --generator FILE.py:NAME")
    return sources


def name_source(source: Run | str) -> str:
    """Return the name above the pictures."""
    return source if isinstance(source, str) else source.name


def open_view(source: Run | str, options: Namespace, *, samples: int) -> View:
    """Return the view that the options choose of a run, or of a user's own generator.

    Args:
        source: A run; or FILE.py:NAME.
        options: Options of `add_view_arguments`.
        samples: Default number of latents to start from.

    Raises:
        FileNotFoundError: If the run has no model yet, or there is no such image or file.
        ValueError: If an option is out of range, requires another, or names something that does
            not exist; or the file makes no generator.
    """
    check_options(options)
    model = _load(source, options.device)
    axes = choose_axes(model, options)
    count = samples if options.samples is None else options.samples
    run = None if isinstance(source, str) else source
    latents, originals = choose_latents(model, run, options, count)
    dead: tuple[Axis, ...] = ()
    if options.sort:
        # as the metric wants them, whatever the latents to start from are
        generator = torch.Generator().manual_seed(options.seed)
        draws = model.sample_latents(RANKING_LATENTS, generator).to(device_of(model))
        if options.axes is None:
            axes, dead = rank_live_axes(model.decode, axes, draws)
        else:
            axes = rank_axes(model.decode, axes, draws)
    values = torch.linspace(-options.range, options.range, options.steps)
    return View(model, axes, latents, values, originals, dead)


def _load(source: Run | str, device: str | None) -> Generator:
    """Load the model of a run onto a GPU if there is one; a user's own generator stays."""
    if not isinstance(source, str):
        return source.generator.to(pick_device(device))
    generator = load_generator_from(source)
    if device is None:
        return generator
    if not isinstance(generator, nn.Module):
        raise ValueError(f"--device needs a generator that is a module, which {source} is not")
    return generator.to(pick_device(device))


def check_options(options: Namespace) -> None:
    """Raise `ValueError` if a number is out of its range, or options exclude each other."""
    for name, least in (("steps", 2), ("samples", 1)):
        if options[name] is not None and not least <= options[name] <= MOST:
            raise ValueError(f"--{name} must be between {least} and {MOST}, got {options[name]}")
    if options.range <= 0:
        raise ValueError(f"--range must be positive, got {options.range}")
    if not 0 <= options.truncation <= 1:
        raise ValueError(f"--truncation must be between 0 and 1, got {options.truncation}")
    if options.image is not None:
        if options.around is not None or options.samples is not None:
            raise ValueError(
                "--image gives the one latent to start from: leave out --around and --samples"
            )
        if not Path(options.image).exists():
            raise FileNotFoundError(f"there is no image {options.image}")


def choose_axes(model: Any, options: Namespace) -> tuple[Axis, ...]:
    """Return the model's own axes, or those of SeFa, or some of them.

    Raises:
        ValueError: If SeFa cannot be applied to the model or the layer, an axis does not exist, or
            an option requires another.
    """
    if options.sefa:
        axes = _find_sefa_axes(model, options)
        count = min(SEFA_AXES, len(axes)) if options.sefa_count is None else options.sefa_count
        if not 1 <= count <= len(axes):
            raise ValueError(f"--sefa_count must be between 1 and {len(axes)}, got {count}")
        axes = axes[:count]
    else:
        for name in ("sefa_layer", "sefa_normalise", "sefa_offset", "sefa_count"):
            if options[name] is not None and options[name] is not False:  # 0 is an offset
                raise ValueError(f"--{name} requires --sefa")
        axes = model.axes
    return axes if options.axes is None else pick_axes(axes, options.axes)


def _find_sefa_axes(model: Any, options: Namespace) -> tuple[Axis, ...]:
    try:
        return sefa_axes(
            model,
            options.sefa_layer,
            offset=options.sefa_offset,
            normalise=options.sefa_normalise,
        )
    except ValueError as error:  # it names the arguments of the function
        raise ValueError(f"{error} (options --sefa_layer, --sefa_offset)") from error


def choose_latents(
    model: Any, run: Run | None, options: Namespace, samples: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return latents `(S, D)` to start from, and a given image beside its reconstruction.

    They are the code of an image, codes of random images, or draws from the prior.
    """
    has_encoder = isinstance(model, Encoder)
    has_images = has_encoder and run is not None
    around = options.around or ("images" if has_images or options.image else "prior")
    if around == "images" and options.truncation != 1:
        raise ValueError("--truncation requires draws of the prior: --around prior")
    generator = torch.Generator().manual_seed(options.seed)
    if options.image is not None:
        return find_image(model, Path(options.image), generator)
    if around == "prior":
        draws = model.sample_latents(samples, generator).to(device_of(model))
        return options.truncation * draws, {}
    if not has_encoder:
        raise ValueError("--around images needs a model with an encoder; use --around prior")
    if run is None:
        raise ValueError("--around images needs the data set of a run; use --around prior")
    data = run.config.build_data()
    random = np.random.default_rng(options.seed)
    indices = random.choice(len(data), samples, replace=samples > len(data))
    with torch.no_grad():
        return model.encode(scale_pixels(data.__getitems__(indices).to(device_of(model)))), {}


def find_image(
    model: Any, file: Path, generator: torch.Generator
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the latent `(1, D)` of an image in a file, and the image beside its reconstruction.

    Args:
        model: A generator, with an encoder or without.
        file: Image, cropped to its central square and resized to the model's size.
        generator: Random generator for the latents that an inversion starts from.
    """
    draws = model.sample_latents(INVERSION_DRAWS, generator).to(device_of(model))
    with torch.no_grad():
        channels, height, width = model.decode(draws[:2]).shape[1:]
    if height != width:
        raise ValueError(f"--image needs a model of square images, got {height} × {width} pixels")
    decoder = Decoder(image_size=height, image_channels=channels)
    image = scale_pixels(decoder.decode(file, file)).to(device_of(model))
    has_encoder = isinstance(model, Encoder)
    if has_encoder:
        with torch.no_grad():
            latents = model.encode(image[None])
            made = model.decode(latents)
        error = (made - image).square().mean()
    else:
        found = invert(model.decode, image[None], draws)
        latents, made, error = found.latents, found.images, found.errors[0]
    name = f"reconstruction (squared error {error:.2g})"
    return latents, {"image": image.cpu(), name: made[0].cpu()}
