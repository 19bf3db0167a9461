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

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from disentangle.config import RunConfig, TrainingConfig, VAEObjective
from disentangle.data import RenderedSprites
from disentangle.models.layers.image_convolution import ImageConvTranspose2d
from disentangle.models.subspace_vae import SubspaceVAE
from disentangle.models.vae_encoders import ConvEncoder
from disentangle.training.batches import Batch, StepSampler, load_batches
from disentangle.training.memory import keep_freed_memory
from disentangle.training.vae.losses import gaussian_divergence, reconstruction_loss
from disentangle.training.vae.task import VAETask

from .subprocesses import Parts, print_profile, start
from .timing import median_seconds, median_seconds_each, print_table

SIZE, BATCH = 64, 64
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
DATA = RenderedSprites(image_size=SIZE)


def make_run() -> RunConfig:
    return RunConfig(
        task="vae",
        output=Path(tempfile.gettempdir()) / "unused",
        data={"name": "sprites"},
        model={"name": "subspace_vae", "image_size": SIZE, "image_channels": 1},
        objective=VAEObjective(),
        training=TrainingConfig(batch_size=BATCH),
    )


class OneByOne(Dataset):
    """Sprites as most data sets are written: one image in float per call."""

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, index: int) -> Tensor:
        return DATA[index].float() / 127.5 - 1


class PlainEncoder(ConvEncoder):
    """Its ReLUs take fresh memory."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        h = images
        for convolution in self.convolutions:
            h = functional.relu(convolution(h))
        return self.posterior(functional.relu(self.hidden(h.flatten(1))))


class PlainLoop:
    """The straightforward loop on the same network."""

    def __init__(self) -> None:
        self.model: SubspaceVAE = make_run().build_model().to(DEVICE)
        self.model.encoder.__class__ = PlainEncoder
        for module in self.model.decoder.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
            elif isinstance(module, ImageConvTranspose2d):
                module.__class__ = nn.ConvTranspose2d  # the same but for how it is computed
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4, fused=False)
        self.images = iter(DataLoader(OneByOne(), batch_size=BATCH, shuffle=True))

    def fetch(self) -> Tensor:
        return next(self.images).to(DEVICE)

    def step(self, images: Tensor) -> None:
        noise = torch.randn(BATCH, self.model.latent_dim, device=DEVICE)
        logits, mean, log_variance = self.model(images, noise)
        divergence = gaussian_divergence(mean, log_variance).sum()
        loss = reconstruction_loss(logits, images, "bernoulli") + divergence
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class OurLoop:
    """The loop of a run, but for what it writes."""

    def __init__(self) -> None:
        keep_freed_memory()
        run = make_run()
        self.step = VAETask(run, Accelerator(), DATA).step
        sampler = StepSampler(
            size=len(DATA),
            batch_size=BATCH,
            samples=range(BATCH),
            seed=0,
            first=1,
            last=run.training.steps,
        )
        self.batches = load_batches(DATA, sampler, device=DEVICE, workers=0)

    def fetch(self) -> Batch:
        return next(self.batches)


def whole(loop: PlainLoop | OurLoop) -> None:
    complete(lambda: loop.step(loop.fetch()))


def complete(function: Callable[[], object]) -> None:
    function()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def floor_seconds() -> tuple[float, float]:
    """Operations of a step, and its seconds at the speed of a large product."""
    model = make_run().build_model()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(BATCH, 1, SIZE, SIZE), torch.zeros(BATCH, model.latent_dim))
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
        rows.append([f"{name}, {part}", f"{1e3 * s:.1f}", f"{BATCH / s:,.0f}", f"{faster:.2f}"])
    where = f"{DEVICE.type}, {torch.get_num_threads()} threads"
    print_table(
        f"VAE step, {SIZE} px, batch {BATCH}, {where}",
        ["step", "ms", "images/s", "times plain"],
        rows,
    )
    operations, floor = floor_seconds()
    share = floor / seconds["ours", "whole"]
    print(f"Floor: {operations:.1f} GFLOP, {1e3 * floor:.1f} ms, {share:.0%} of ours", flush=True)
    ask["ours"]("profile")
