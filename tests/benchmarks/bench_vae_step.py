"""A training step of the VAE, data included, beside a plain loop, and where its time goes.

The plain loop is a straightforward one on the same network: images are fetched, converted to float
and collated one by one, the usual memory order, ReLUs that each take fresh memory, PyTorch's own
transposed convolutions, unfused Adam.
Neither loop logs or saves. Each has a process of its own, since how a process keeps freed memory
counts; they take turns.

The floor counts the floating-point operations of convolutions and products once, three passes
(forward, and backward for inputs and for weights), at the speed of one large product of matrices.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from disentangle.config import RunConfig, TrainingConfig, VAEObjective
from disentangle.data import RenderedSprites
from disentangle.losses.elbo import gaussian_divergence, reconstruction_loss
from disentangle.models.layers.image_convolution import ImageConvTranspose2d
from disentangle.models.subspace_vae import SubspaceVAE
from disentangle.models.vae_encoders import ConvEncoder
from disentangle.training.accelerator import keep_freed_memory
from disentangle.training.batches import Batch, StepSampler, load_batches
from disentangle.training.vae.task import VAETask

from .scale import Scale, synchronise, usual_device
from .subprocesses import Parts, print_profile, start
from .timing import median_seconds, median_seconds_each, print_table

DEVICE = usual_device()
USUAL = Scale(64, 64, DEVICE)


def make_run(scale: Scale = USUAL, **training: Any) -> RunConfig:
    model = {"name": "subspace_vae", "image_size": scale.size, "image_channels": 1}
    return RunConfig(
        task="vae",
        output=Path(tempfile.gettempdir()) / "unused",
        data={"name": "sprites"},
        model=model | dict(scale.model),
        objective=VAEObjective(),
        training=TrainingConfig(batch_size=scale.batch, **training),
    )


class OneByOne(Dataset):
    """Sprites as most data sets are written: one image in float per call."""

    def __init__(self, data: RenderedSprites) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Tensor:
        return self.data[index].float() / 127.5 - 1


class PlainEncoder(ConvEncoder):
    """Its ReLUs take fresh memory."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = images
        for convolution in self.convolutions:
            h = functional.relu(convolution(h))
        return self.posterior(functional.relu(self.hidden(h.flatten(1))))


class PlainLoop:
    """The straightforward loop on the same network."""

    def __init__(self, scale: Scale = USUAL) -> None:
        self.scale, run = scale, make_run(scale)
        self.model: SubspaceVAE = run.build_model().to(scale.device)
        self.model.encoder.__class__ = PlainEncoder
        for module in self.model.decoder.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
            elif isinstance(module, ImageConvTranspose2d):
                module.__class__ = nn.ConvTranspose2d  # the same but for how it is computed
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=False)
        data = OneByOne(run.build_data())
        self.images = iter(DataLoader(data, batch_size=scale.batch, shuffle=True))

    def fetch(self) -> Tensor:
        return next(self.images).to(self.scale.device)

    def step(self, images: Tensor) -> None:
        noise = torch.randn(len(images), self.model.latent_dim, device=images.device)
        logits, mean, log_variance = self.model(images, noise)
        divergence = gaussian_divergence(mean, log_variance).sum()
        loss = reconstruction_loss(logits, images, "bernoulli") + divergence
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class OurLoop:
    """The loop of a run, but for what it writes."""

    def __init__(self, scale: Scale = USUAL, **training: Any) -> None:
        keep_freed_memory()
        run = make_run(scale, **training)
        data = run.build_data()
        accelerator = Accelerator(mixed_precision=run.training.mixed_precision)
        self.step = VAETask(run, accelerator, data).step
        sampler = StepSampler(
            size=len(data),
            batch_size=scale.batch,
            samples=range(scale.batch),
            seed=0,
            first=1,
            last=run.training.steps,
        )
        self.batches = load_batches(data, sampler, device=scale.device, workers=0)

    def fetch(self) -> Batch:
        return next(self.batches)


def whole(loop: PlainLoop | OurLoop) -> None:
    complete(lambda: loop.step(loop.fetch()))


def complete(function: Callable[[], object]) -> None:
    function()
    synchronise(DEVICE)


def floor_seconds() -> tuple[float, float]:
    """Operations of a step, and its seconds at the speed of a large product."""
    model = make_run().build_model()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        images = torch.zeros(USUAL.batch, 1, USUAL.size, USUAL.size)
        model(images, torch.zeros(USUAL.batch, model.latent_dim))
    operations = 3 * counter.get_total_flops()
    matrix = torch.randn(2048, 2048, device=DEVICE)
    seconds = median_seconds(lambda: complete(lambda: matrix @ matrix))
    return operations / 1e9, operations * seconds / (2 * 2048**3)


def prepare(build: type[PlainLoop] | type[OurLoop]) -> Parts:
    """What is measured of a loop."""
    loop = build()
    at_hand = loop.fetch()
    step = partial(whole, loop)
    return {
        "whole": step,
        "data only": partial(complete, loop.fetch),
        "data at hand": partial(complete, partial(loop.step, at_hand)),  # type: ignore[arg-type]
        "profile": partial(print_profile, step),
    }


def main() -> None:
    loops = {"plain": PlainLoop, "ours": OurLoop}
    ask = {name: start(partial(prepare, build)) for name, build in loops.items()}
    parts = [(name, part) for name in loops for part in ("whole", "data only", "data at hand")]
    times = median_seconds_each([partial(ask[name], part) for name, part in parts], repeats=25)
    seconds = dict(zip(parts, times, strict=True))
    rows = []
    for (name, part), s in seconds.items():
        faster = seconds["plain", part] / s
        rows.append(
            [f"{name}, {part}", f"{1e3 * s:.1f}", f"{USUAL.batch / s:,.0f}", f"{faster:.2f}"]
        )
    where = f"{DEVICE.type}, {torch.get_num_threads()} threads"
    print_table(
        f"VAE step, {USUAL.size} px, batch {USUAL.batch}, {where}",
        ["step", "ms", "images/s", "times plain"],
        rows,
    )
    operations, floor = floor_seconds()
    share = floor / seconds["ours", "whole"]
    print(f"Floor: {operations:.1f} GFLOP, {1e3 * floor:.1f} ms, {share:.0%} of ours", flush=True)
    ask["ours"]("profile")
