"""A training step of EigenGAN, beside a plain one in eager float32, and where its time goes.

The plain step is what a straightforward loop does: the usual memory order, convolutions of every
point of a subspace in place of its basis, images made for each of the two steps, the discriminator
called once for real and once for made images and left to collect gradients in the generator's step,
unfused Adam, and NOG by `torch.linalg.svd`. R1, due in one step of sixteen, is left out of all of
them. The plain steps and ours have a process each; they take turns.

The floor counts the floating-point operations of the step's convolutions and products once: three
passes through the generator (forward, and backward for inputs and for weights) and eight through
the discriminator (three each for real and made images, two for the generator's gradient), at the
speed of one large product of matrices.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.utils.flop_counter import FlopCounterMode

from disentangle.config import GANObjective, OptimizerConfig, RunConfig, TrainingConfig
from disentangle.data import RenderedSprites
from disentangle.losses.adversarial import discriminator_loss, generator_loss
from disentangle.models.eigengan import SLOPE, EigenBlock
from disentangle.orthogonality import optimal_learning_rate
from disentangle.orthogonality.nog import nearest_orthogonal_gradients
from disentangle.training.accelerator import keep_freed_memory
from disentangle.training.batches import Batch
from disentangle.training.gan.diff_augment import DRAWS, diff_augment
from disentangle.training.gan.task import GANTask

from .scale import Scale, synchronise, usual_device
from .subprocesses import Parts, print_profile, start
from .timing import median_seconds, median_seconds_each, print_table

DEVICE = usual_device()
USUAL = Scale(256, 64, DEVICE) if DEVICE.type == "cuda" else Scale(64, 16, DEVICE)
OBJECTIVE = GANObjective()
DATA = RenderedSprites(image_size=32)  # asked for when samples are drawn, so never here


def make_run(*techniques: str, scale: Scale = USUAL, **training: Any) -> RunConfig:
    usual = {"mixed_precision": "bf16" if scale.device.type == "cuda" else "no"}
    widths = dict(scale.model)
    return RunConfig(
        task="gan",
        output=Path(tempfile.gettempdir()) / "unused",
        data={"name": "folder"},
        model={"name": "eigengan", "image_size": scale.size, "image_channels": 3, **widths},
        discriminator={"name": "eigengan", **widths},
        objective=OBJECTIVE,
        optimizer=OptimizerConfig(betas=(0.5, 0.99)),
        training=TrainingConfig(batch_size=scale.batch, conditioning_every=0, **(usual | training)),
        orthogonality=techniques,
    )


def make_batch(step: int, scale: Scale = USUAL) -> Batch:
    shape = (scale.batch, 3, scale.size, scale.size)
    images = torch.rand(shape, device=scale.device) * 2 - 1
    return Batch(images, step=step, samples=range(scale.batch), seed=0)


class PlainBlock(EigenBlock):
    """Convolves the points of the subspace."""

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        phi = self.subspace(z).unflatten(1, self.feature_shape)
        h = self.feature_conv1(leaky_relu(h + self.subspace_conv1(phi), SLOPE))
        return self.feature_conv2(leaky_relu(h + self.subspace_conv2(phi), SLOPE))


class PlainStep:
    """The straightforward step on the same networks."""

    def __init__(self, *, nog: bool, scale: Scale = USUAL) -> None:
        run, self.scale = make_run(scale=scale), scale
        self.generator = run.build_model().to(scale.device)
        for block in self.generator.blocks:
            block.__class__ = PlainBlock
        self.discriminator = run.build_discriminator().to(scale.device)
        self.bases = [block.subspace.U for block in self.generator.blocks] if nog else []
        self.optimizers = [
            torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.5, 0.99))
            for network in (self.generator, self.discriminator)
        ]

    def __call__(self, batch: Batch) -> None:
        for_generator, for_discriminator = self.optimizers
        with torch.no_grad():
            fake = self.generator(self.latents())
        real_logits = self.discriminator(self.augment(batch.images))
        fake_logits = self.discriminator(self.augment(fake))
        self.descend(for_discriminator, discriminator_loss(real_logits, fake_logits, "hinge"))
        fake = self.augment(self.generator(self.latents()))
        self.descend(for_generator, generator_loss(self.discriminator(fake), "hinge"))

    def latents(self) -> Tensor:
        shape = (self.scale.batch, self.generator.latent_dim)
        return torch.randn(shape, device=self.scale.device)

    def augment(self, images: Tensor) -> Tensor:
        draws = torch.rand(len(images), DRAWS, device=images.device)
        return diff_augment(images, draws, OBJECTIVE.augment_probability)

    def descend(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        for U in self.bases if optimizer is self.optimizers[0] else []:
            left, _, right = torch.linalg.svd(U.grad, full_matrices=False)
            U.grad = left @ right
        optimizer.step()


def make_task(*techniques: str, scale: Scale = USUAL, **training: Any) -> GANTask:
    run = make_run(*techniques, scale=scale, **training)
    accelerator = Accelerator(mixed_precision=run.training.mixed_precision)
    return GANTask(run, accelerator, DATA)


def complete(step: Callable[[Batch], object], batch: Batch) -> None:
    synchronised(step, batch)


def count_operations(network: nn.Module, inputs: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(inputs)
    return counter.get_total_flops()


def floor_seconds(plain: PlainStep) -> tuple[float, float]:
    """Operations of a step, and its seconds at the speed of a large product."""
    latents = plain.latents()
    generator = count_operations(plain.generator, latents)
    discriminator = count_operations(plain.discriminator, plain.generator(latents).detach())
    operations = 3 * generator + 8 * discriminator
    dtype = torch.bfloat16 if DEVICE.type == "cuda" else torch.float32
    side = 8192 if DEVICE.type == "cuda" else 2048
    matrix = torch.randn(side, side, device=DEVICE, dtype=dtype)

    def product() -> None:
        _ = matrix @ matrix
        synchronise(DEVICE)

    speed = 2 * side**3 / median_seconds(product)
    return operations / 1e9, operations / speed


def measure_techniques(size: int) -> list[str]:
    """What NOG and OLR take by themselves, beside a step: less than its noise."""
    scale = replace(USUAL, size=size)
    bases = [block.subspace.U.detach() for block in make_run(scale=scale).build_model().blocks]
    bases = [basis.to(DEVICE) for basis in bases]
    gradients = [torch.randn_like(basis) for basis in bases]
    nog = median_seconds(lambda: synchronised(nearest_orthogonal_gradients, gradients))
    pairs = list(zip(bases, gradients, strict=True))
    olr = median_seconds(
        lambda: synchronised(lambda: [optimal_learning_rate(*pair, 1e-4) for pair in pairs])
    )
    task, batch = make_task(scale=scale), make_batch(1, scale)
    step = median_seconds(partial(complete, task.step, batch), repeats=3)
    shares = [f"{nog / step:.2%}", f"{olr / step:.2%}"]
    return [f"{size} px", *(f"{1e3 * seconds:.2f}" for seconds in (step, nog, olr)), *shares]


def synchronised(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)
    synchronise(DEVICE)


def prepare_plain() -> Parts:
    batch = make_batch(step=1)
    steps = {name: PlainStep(nog=nog) for name, nog in (("none", False), ("nog by SVD", True))}
    return {f"plain, {name}": partial(complete, step, batch) for name, step in steps.items()}


def prepare_ours() -> Parts:
    keep_freed_memory()
    batch = make_batch(step=1)
    parts: dict[str, Callable[[], object]] = {
        ", ".join(techniques) or "none": partial(complete, make_task(*techniques).step, batch)
        for techniques in ((), ("nog",), ("olr",), ("nog", "olr"))
    }
    return parts | {"profile": partial(print_profile, parts["nog"])}


def main() -> None:
    plain, ours = start(prepare_plain), start(prepare_ours)
    steps = {name: partial(plain, name) for name in ("plain, none", "plain, nog by SVD")}
    steps |= {name: partial(ours, name) for name in ("none", "nog", "olr", "nog, olr")}
    times = median_seconds_each(list(steps.values()))
    seconds = dict(zip(steps, times, strict=True))
    rows = []
    for name, s in seconds.items():
        faster, more = seconds["plain, none"] / s, s / seconds["none"] - 1
        rows.append(
            [name, f"{1e3 * s:.1f}", f"{USUAL.batch / s:.1f}", f"{faster:.2f}", f"{more:+.1%}"]
        )
    where = f"{DEVICE.type}, {torch.get_num_threads()} threads"
    print_table(
        f"EigenGAN step, {USUAL.size} px, batch {USUAL.batch}, {where}",
        ["step", "ms", "images/s", "times plain, none", "beside none"],
        rows,
    )
    print_table(
        f"The techniques by themselves, batch {USUAL.batch}",
        ["size", "step, ms", "NOG, ms", "OLR, ms", "NOG's share", "OLR's share"],
        [measure_techniques(size) for size in (32, 64, 128, 256)],
    )
    operations, floor = floor_seconds(PlainStep(nog=False))
    share = floor / seconds["none"]
    print(f"Floor: {operations:.1f} GFLOP, {1e3 * floor:.1f} ms, {share:.0%} of `none`", flush=True)
    ours("profile")
