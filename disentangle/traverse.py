"""`disentangle traverse RUN`: pictures of what every latent axis of a run's model does."""

import sys
from collections.abc import Sequence

import torch
from jsonargparse import ArgumentParser

from disentangle.commands import bad_input_exits, parse_arguments, pick_device
from disentangle.training.run_folder import RunFolder
from disentangle.traversal import save_animation, traversal_grid, traverse


def main(arguments: Sequence[str]) -> int:
    """Draws the traversals of a run; returns the exit status."""
    with bad_input_exits("traverse"):
        options = parse_arguments(build_parser(), arguments)
        folder = RunFolder.open(options.run)
        model = folder.load_generator().to(pick_device(options.device))
        if options.steps < 2 or options.samples < 1 or options.range <= 0:
            raise ValueError("--steps must be at least 2, --samples at least 1, --range positive")
    values = torch.linspace(-options.range, options.range, options.steps)
    generator = torch.Generator().manual_seed(options.seed)
    latents = model.sample_latents(options.samples, generator).to(model.device)
    frames = traverse(model.decode, latents, model.axes, values=values)
    return 0
