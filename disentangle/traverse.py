"""`disentangle traverse RUN`: pictures of what every latent axis of a run's model does.

With `--sefa`, of what the directions do that SeFa finds in the layer that takes in the latents.
"""

import sys
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from diffusers import ModelMixin
from jsonargparse import ArgumentParser, Namespace
from torch import Tensor

from disentangle.commands import bad_input_exits, parse_arguments, pick_device, read_run
from disentangle.data import scale_pixels
from disentangle.models import Axis, Encoder, sefa_axes
from disentangle.parsing import new_parser
from disentangle.training.run_folder import RunFolder
from disentangle.traversal import save_animation, traversal_grid, traverse, value_labels

SEFA_AXES = 10  # that are drawn unless told otherwise


def main(arguments: Sequence[str]) -> int:
    """Draws the traversals of a run; returns the exit status."""
    with bad_input_exits("traverse"):
        options = parse_arguments(build_parser(), arguments)
        folder = RunFolder.open(options.run)
        model = folder.load_generator().to(pick_device(options.device))
        for name, least in (("steps", 2), ("samples", 1)):
            if options[name] < least:
                raise ValueError(f"--{name} must be at least {least}, got {options[name]}")
        if options.range <= 0:
            raise ValueError(f"--range must be positive, got {options.range}")
        axes = choose_axes(model, options)
        latents = choose_latents(model, folder, options)
        if folder.traversals.exists() and not folder.traversals.is_dir():
            raise ValueError(f"pictures cannot be written to {folder.traversals}: it is a file")
        values = torch.linspace(-options.range, options.range, options.steps)
        frames = traverse(model.decode, latents, axes, values=values)
        labels = [axis.name for axis in axes], value_labels(values)
        groups = [axis.group for axis in axes]
        name = "traversal" if options.sefa is None else "sefa"
        grid, animation = (folder.traversals / f"{name}.{kind}" for kind in ("png", "webp"))
        picture = traversal_grid(frames, *labels, groups=groups)
        folder.traversals.mkdir(exist_ok=True)
        save_animation(frames, animation, *labels, groups=groups)  # refuses what is too large
        picture.save(grid)
    print(f"grid:      {grid}\nanimation: {animation}")
    return 0


def choose_axes(model: ModelMixin, options: Namespace) -> tuple[Axis, ...]:
    """The model's own axes, or those of SeFa.

    Raises:
        ValueError: If SeFa cannot be had of the model or the layer, or an option has no meaning.
    """
    if options.sefa is None:
        for name in ("sefa_offset", "sefa_count"):
            if options[name] is not None:
                raise ValueError(f"--{name} has a meaning with --sefa only")
        return model.axes
    axes = sefa_axes(model, options.sefa or None, offset=options.sefa_offset)
    count = min(SEFA_AXES, len(axes)) if options.sefa_count is None else options.sefa_count
    if not 1 <= count <= len(axes):
        raise ValueError(f"--sefa_count must be between 1 and {len(axes)}, got {count}")
    return axes[:count]


@torch.no_grad()
def choose_latents(model: ModelMixin, folder: RunFolder, options: Namespace) -> Tensor:
    """The latents `(S, D)` to start from: codes of random images, or draws from the prior."""
    has_encoder = isinstance(model, Encoder)
    if options.around == "images" or (options.around is None and has_encoder):
        if not has_encoder:
            raise ValueError("--around images needs a model with an encoder; use --around prior")
        data = read_run(folder).build_data()
        random = np.random.default_rng(options.seed)
        indices = random.choice(len(data), options.samples, replace=options.samples > len(data))
        return model.encode(scale_pixels(data.__getitems__(indices).to(model.device)))
    generator = torch.Generator().manual_seed(options.seed)
    return model.sample_latents(options.samples, generator).to(model.device)


def build_parser() -> ArgumentParser:
    """The options of the command."""
    parser = new_parser("traverse")
    parser.add_argument("run", type=str, help="A run folder.")
    parser.add_argument("--steps", type=int, default=9, help="Values of each axis.")
    parser.add_argument(
        "--range", type=float, default=2.0, help="Largest value, in standard deviations."
    )
    parser.add_argument("--samples", type=int, default=1, help="Latents to start from.")
    parser.add_argument(
        "--around",
        type=Literal["images", "prior"],
        help="Start from codes of random images of the data set (default for a model with an "
        "encoder) or from draws of the prior.",
    )
    parser.add_argument(
        "--sefa",
        type=str,
        nargs="?",
        const="",
        metavar="LAYER",
        help="Along the directions that SeFa finds in the layer that takes in the latents (by "
        "default the first such layer of the model), in place of the model's own axes.",
    )
    parser.add_argument(
        "--sefa_offset", type=int, help="Index of the layer's first latent, if it takes in a part."
    )
    parser.add_argument(
        "--sefa_count", type=int, help=f"Directions of SeFa; default: the first {SEFA_AXES}."
    )
    parser.add_argument("--seed", type=int, default=0, help="Of the choice of latents.")
    parser.add_argument("--device", type=str, help="Default: a GPU if there is one.")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
