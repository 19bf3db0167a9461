"""Traversals of a 64 px EigenGAN as files, beside the bare forward passes that they need."""

import tempfile
from pathlib import Path

import torch
from jsonargparse import Namespace

from disentangle.cli.view import View
from disentangle.models import EigenGAN
from disentangle.traverse import draw

from .timing import median_seconds_each, print_table

SAMPLES, VALUES, BATCH = 8, 9, 64
SAME = {"sefa": False, "sort": False, "run": None, "out": None, "overwrite": True}
CHOICES = {
    "grids": {"animation": "none", "differences": False},
    "grids with differences": {"animation": "none", "differences": True},
    "grids and WebP": {"animation": "webp", "differences": False},
}


@torch.no_grad()
def decode_all(model: EigenGAN, latents: torch.Tensor) -> None:
    for batch in latents.split(BATCH):
        model.decode(batch)


def main() -> None:
    torch.manual_seed(0)
    model = EigenGAN(image_size=64).eval()
    view = View(model, model.axes, model.sample_latents(SAMPLES), torch.linspace(-2, 2, VALUES), {})
    needed = model.sample_latents(len(model.axes) * SAMPLES * VALUES)
    with tempfile.TemporaryDirectory() as name:

        def draw_as(choice: dict[str, object]) -> None:
            draw(view, Path(name), Namespace(SAME | choice))

        bare, *others = median_seconds_each(
            [
                lambda: decode_all(model, needed),
                *(lambda choice=choice: draw_as(choice) for choice in CHOICES.values()),
            ],
            repeats=3,
        )
    rows = [
        [label, f"{seconds:.2f}", f"{bare:.2f}", f"{seconds / bare:.2f}"]
        for label, seconds in zip(CHOICES, others, strict=True)
    ]
    print_table(
        f"Traversals: {len(model.axes)} axes × {VALUES} values × {SAMPLES} samples of 64 × 64",
        ["", "seconds", "forward passes", "ratio"],
        rows,
    )
