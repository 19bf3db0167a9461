"""Small server that moves all axes at once."""

import math
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from disentangle.explorer.local_only import LocalOnly
from disentangle.models import Axis
from disentangle.traversal.pixels import enlarge, to_pixels
from disentangle.traversal.traverse import stack_directions

STEP = 0.05  # standard deviations
SMALLEST = 384  # px: smaller pictures are enlarged to about this
# Seconds between two removals of old pictures, and the age at which a picture is old: each movement
# of a slider makes one, and the picture that is shown can be downloaded until then.
CLEANING = (60, 600)
TEMPORARY = "GRADIO_TEMP_DIR"


def read_positions(z: Tensor, axes: Sequence[Axis]) -> list[float]:
    """Return the positions of a latent `(D,)` along axes, in standard deviations.

    Examples:
        >>> axes = [Axis("a", "codes", torch.tensor([0.0, 1.0]), std=2.0)]
        >>> read_positions(torch.tensor([5.0, 3.0]), axes)
        [1.5]
    """
    stds = z.new_tensor([axis.std for axis in axes])
    return (stack_directions(axes, z[None]) @ z / stds).tolist()


@torch.no_grad()
def draw_at(
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
    axes: Sequence[Axis],
    positions: Sequence[float],
) -> np.ndarray:
    """Decode a latent whose components along all axes are replaced at once.

    Args:
        decode: Maps latents `(N, D)` to images `(N, C, H, W)` in `[-1, 1]`.
        z: Base latent, shape `(D,)`, on the device of the decoder.
        axes: `A` axes, orthogonal to each other.
        positions: Position along each axis, in its standard deviations.

    Returns:
        RGB bytes `(H, W, 3)`, enlarged by an integer factor to at least 384 pixels.

    Raises:
        ValueError: If the numbers of positions and axes differ.

    Examples:
        >>> axes = [Axis("a", "codes", torch.tensor([0.0, 1.0]), std=0.5)]
        >>> decode = lambda z: z[:, 1:, None, None].expand(-1, -1, 64, 64)
        >>> draw_at(decode, torch.zeros(2), axes, [2.0])[0, 0].tolist()
        [255, 255, 255]
    """
    if len(positions) != len(axes):
        raise ValueError(f"{len(axes)} positions are needed, got {len(positions)}")
    d = stack_directions(axes, z[None])  # (A, D)
    stds = z.new_tensor([axis.std for axis in axes])
    moved = z + (z.new_tensor(positions) * stds - d @ z) @ d
    image = decode(moved[None])[0]
    return enlarge(to_pixels(image), math.ceil(SMALLEST / min(image.shape[1:])))


def build_app(
    decode: Callable[[Tensor], Tensor],
    latents: Tensor,
    axes: Sequence[Axis],
    *,
    name: str,
    limit: float,
) -> Any:
    """Build a gradio app with one picture and a slider for each axis, grouped in accordions.

    Args:
        decode: Maps latents `(N, D)` to images `(N, C, H, W)` in `[-1, 1]`.
        latents: Base latents, shape `(S, D)`.
        axes: `A` axes, orthogonal to each other.
        name: Title of the page.
        limit: Limit of the sliders, in standard deviations; raised to include the base latents.
    """
    import gradio

    positions = [[round(p, 2) for p in read_positions(z, axes)] for z in latents]
    limit = max(limit, math.ceil(float(np.abs(positions).max()) / STEP) * STEP)

    def draw(sample: int, *moved: float) -> Image.Image:
        image = Image.fromarray(draw_at(decode, latents[sample - 1], axes, moved))
        # gradio names a file by its content and writes it again while others are sent it.
        image.info["id"] = uuid4().hex
        return image

    with gradio.Blocks(title=name, analytics_enabled=False, delete_cache=CLEANING) as app:
        gradio.Markdown("# Explorer")
        with gradio.Row():
            with gradio.Column():
                # no button that uploads the picture to a public site
                picture = gradio.Image(
                    draw(1, *positions[0]), label=name, format="png", buttons=["download"]
                )
                numbers = list(range(1, len(latents) + 1))
                sample = gradio.Dropdown(numbers, value=1, label="Sample")
                reset = gradio.Button("Reset")
            with gradio.Column():
                sliders = _add_sliders(axes, positions[0], limit)
        inputs = [sample, *sliders]
        for slider in sliders:
            # draw only the last of the changes that arrive during a drawing
            slider.change(draw, inputs, picture, show_progress="hidden", trigger_mode="always_last")
        for event in (sample.change, reset.click):
            event(lambda chosen: positions[chosen - 1], sample, sliders)
    return app


def start(app: Any, port: int | None) -> None:
    """Start to serve an app to this machine only.

    Requests with a foreign host or origin and uploads are refused.

    Args:
        app: App, such as `build_app` returns.
        port: Port to serve on; by default the first free one from 7860.

    Raises:
        OSError: If the port is not free.
    """
    from starlette.middleware import Middleware

    try:
        app.queue().launch(
            server_name="127.0.0.1",
            server_port=port,
            share=False,
            ssr_mode=False,  # its server would sit in front of `LocalOnly`
            prevent_thread_lock=True,
            app_kwargs={"middleware": [Middleware(LocalOnly)]},
        )
    except OSError as error:  # its advice does not apply here
        raise OSError(
            f"port {port or 'from 7860 on'} is not free: choose another --port"
        ) from error


def wait(app: Any) -> None:
    """Serve a started app until it is interrupted or terminated."""
    for number in (signal.SIGTERM, signal.SIGHUP):  # end as with Ctrl-C
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
            signal.signal(number, signal.default_int_handler)
    app.block_thread()


@contextmanager
def own_folder() -> Iterator[None]:
    """Use a temporary folder of its own for an app that is built and served in the body.

    gradio's usual folder is shared by all users of the machine, and each picture leaves an empty
    folder in it. This one is removed at the end.
    """
    usual = os.environ.get(TEMPORARY)
    with TemporaryDirectory(prefix="disentangle-", dir=usual, ignore_cleanup_errors=True) as folder:
        os.environ[TEMPORARY] = folder
        try:
            yield
        finally:
            del os.environ[TEMPORARY]
            if usual is not None:
                os.environ[TEMPORARY] = usual


def _add_sliders(axes: Sequence[Axis], positions: Sequence[float], limit: float) -> list[Any]:
    import gradio

    sliders = []
    for group, members in groupby(range(len(axes)), key=lambda a: axes[a].group):
        with gradio.Accordion(group):
            for a in members:
                slider = gradio.Slider(
                    -limit, limit, value=positions[a], step=STEP, label=axes[a].name
                )
                sliders.append(slider)
    return sliders
