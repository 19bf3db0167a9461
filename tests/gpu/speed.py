"""Measure time and memory of training steps and matrix functions, side by side.

Steps that are compared run in one process and take turns. The plain steps are those of
`tests.benchmarks`. To add a measurement, add an entry to `checks`.
"""

import gc
import statistics
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator

from disentangle.config import ClassificationObjective, RunConfig, TrainingConfig
from disentangle.data.labelled.array import LabelledArray
from disentangle.linalg import polar_factors
from disentangle.orthogonality import attach
from disentangle.training.batches import Batch
from disentangle.training.classification.task import ClassificationTask
from disentangle.training.gan.task import GANTask
from tests.benchmarks.bench_gan_step import PlainStep, make_batch, make_task
from tests.benchmarks.bench_polar_factor import WIDTHS, polar_by_svd
from tests.benchmarks.bench_square_root import METHODS, SIZES, make_covariance, with_gradient
from tests.benchmarks.bench_vae_step import OurLoop, PlainLoop, whole
from tests.benchmarks.scale import Scale, synchronise
from tests.benchmarks.timing import seconds_each

from .harness import Checks, Figure, Setting, SkippedError
from .linear_algebra import ROOTS
from .precision import quick_compiler
from .sessions import lone_run, run_beside_others

WARM_UP = 3  # every graph is compiled by then
FASTEST = {"mixed_precision": "bf16", "compile": True, "channels_last": True}
FLOAT32 = {"mixed_precision": "no"}
Steps = Mapping[str, Callable[[], Callable[[], object]]]


def checks(setting: Setting) -> Checks:
    """Yield the measurements; those that compile networks come last, but for the largest."""
    measurements = {
        "EigenGAN, 256 px": partial(measure_gan, 256),
        "polar factors": measure_polar_factors,
        "ResNet": measure_resnet,
        "VAE": measure_vae,
        "roots": measure_roots,
        "EigenGAN, 64 px": partial(measure_gan, 64),
        "EigenGAN, 128 px": partial(measure_gan, 128),
    }
    if setting.quick:
        del measurements["EigenGAN, 64 px"], measurements["EigenGAN, 128 px"]
    for name, measure in measurements.items():
        yield name, partial(within_memory, measure, setting)


def within_memory(
    measure: Callable[[Setting], Iterator[Figure]], setting: Setting
) -> Iterator[Figure]:
    """Skip the rest of a measurement if the GPU runs out of memory."""
    try:
        yield from measure(setting)
    except torch.OutOfMemoryError as error:
        raise SkippedError("the GPU has not enough memory") from error
    finally:
        gc.collect()
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()


def repeats(setting: Setting, usual: int) -> int:
    """Number of repetitions."""
    return 2 if setting.quick else usual


def compare_steps(
    title: str, steps: Steps, batch: int, setting: Setting, *, at_least: float | None = None
) -> Iterator[Figure]:
    """Measure images per second and memory of steps, each in turns with the first step.

    Each step is measured as soon as it is built, so that figures do not wait for a later step to
    compile.

    Args:
        title: Beginning of the names of the figures.
        steps: Builders of functions that run a step and synchronise, by name.
        batch: Images per step.
        setting: Device and size of the checks.
        at_least: Target for the speed of the last step relative to the first.
    """
    (first, build_first), *others = steps.items()
    plain = yield from build_step(f"{title}, {first}", build_first, setting)
    for name, build in others:
        step = yield from build_step(f"{title}, {name}", build, setting)
        times, records = seconds_each([plain, step], repeats(setting, 20), warm_up=2)
        if name == others[0][0]:
            yield Figure(f"{title}, {first}", [batch / s for s in times], "images/s")
        yield Figure(f"{title}, {name}", [batch / s for s in records], "images/s")
        ratios = [a / b for a, b in zip(times, records, strict=True)]
        target = at_least if name == others[-1][0] else None
        yield Figure(f"{title}, {name}, beside {first}", ratios, "times", at_least=target)


def build_step(
    name: str, build: Callable[[], Callable[[], object]], setting: Setting
) -> Generator[Figure, None, Callable[[], object]]:
    """Build a step and warm it up; on a GPU, also yield its peak memory."""
    on_gpu = setting.device.type == "cuda"
    before = torch.cuda.memory_allocated() if on_gpu else 0
    step = build()
    for _ in range(WARM_UP):
        step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        step()
        peak = (torch.cuda.max_memory_allocated() - before) / 2**30
        yield Figure(f"{name}, peak memory", [peak], "GiB")
    return step


# GAN


def measure_gan(size: int, setting: Setting) -> Iterator[Figure]:
    """Measure a step of generator and discriminator, and the shares of NOG and OLR in it."""
    toy = (("base_channels", 4), ("max_channels", 8))
    scale = Scale(size, 64, setting.device)
    if setting.quick:
        scale = Scale(32, 4, setting.device, toy)
    batch = make_batch(1, scale)
    tasks: dict[str, GANTask] = {}

    def build(name: str, **training: object) -> Callable[[], object]:
        run_beside_others()
        tasks[name] = make_task(scale=scale, **training)
        return partial(complete, partial(tasks[name].step, batch), setting.device)

    def build_plain() -> Callable[[], object]:
        return partial(complete, partial(PlainStep(nog=False, scale=scale), batch), setting.device)

    torch.compiler.reset()
    fastest = "ours, bfloat16, compiled, channels last"
    steps = {
        "plain, float32": build_plain,
        "ours, float32": partial(build, "ours, float32", **FLOAT32),
        fastest: partial(build, fastest, **FASTEST),
    }
    with ExitStack() as stack:
        stack.enter_context(lone_run(setting))
        stack.enter_context(quick_compiler() if setting.quick else nullcontext())
        title = f"EigenGAN, {scale.size} px, batch {scale.batch}"
        yield from compare_steps(title, steps, scale.batch, setting, at_least=3)
        yield from measure_shares(title, tasks[fastest], batch, setting)


def measure_shares(title: str, task: GANTask, batch: Batch, setting: Setting) -> Iterator[Figure]:
    """Measure the time that NOG and OLR add to a step when attached to its optimizer."""
    optimizer = task.learner.optimizer.optimizer
    step = partial(complete, partial(task.step, batch), setting.device)
    seconds = {}
    for technique in ("none", "nog", "olr"):  # OLR divides the groups of the optimizer for good
        chosen = [] if technique == "none" else [technique]
        with attach(optimizer, task.learner.pre_svd, chosen):
            (seconds[technique],) = seconds_each([step], repeats(setting, 30), warm_up=2)
    plain = statistics.median(seconds["none"])
    for technique, most in (("nog", 3.0), ("olr", 1.0)):
        shares = [100 * (s / plain - 1) for s in seconds[technique]]
        yield Figure(f"{title}, share of {technique} in a step", shares, "%", at_most=most)


def complete(function: Callable[[], object], device: torch.device) -> None:
    """Call a function and synchronise."""
    function()
    synchronise(device)


# Matrix functions


def measure_polar_factors(setting: Setting) -> Iterator[Figure]:
    """Measure the polar factors of EigenGAN-256's gradients beside `torch.linalg.svd`."""
    widths = (64, 128) if setting.quick else WIDTHS
    gradients = [torch.randn(6, width, device=setting.device) for width in widths]
    calls = {
        "ours": lambda: polar_factors(gradients),
        "torch.linalg.svd": lambda: [polar_by_svd(gradient) for gradient in gradients],
    }
    timed = [partial(complete, call, setting.device) for call in calls.values()]
    (longest,) = seconds_each(timed[1:], 1, warm_up=0)[0]
    # cuSOLVER may take long over matrices as wide as these.
    count = max(2, min(repeats(setting, 7), int(5 / longest)))
    ours, theirs = seconds_each(timed, count, warm_up=1)
    title = f"polar factors of the {len(widths)} bases of EigenGAN-256"
    yield Figure(f"{title}, ours", [1e3 * s for s in ours], "ms")
    yield Figure(f"{title}, torch.linalg.svd", [1e3 * s for s in theirs], "ms")
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    yield Figure(f"{title}, ours beside torch.linalg.svd", ratios, "times")


def measure_roots(setting: Setting) -> Iterator[Figure]:
    """Measure the inverse square root by size and method, without and with its gradient."""
    root = ROOTS["inverse square root"]
    for n, batch in ((4, 2),) if setting.quick else SIZES:
        A = make_covariance(n, batch, 1e4).to(setting.device)
        G = torch.ones_like(A)
        kinds: dict[str, Callable[[str], object]] = {
            "inverse root": partial(root, A),
            "inverse root with its gradient": partial(with_gradient, root, A, G),
        }
        for kind, call in kinds.items():
            timed = [partial(complete, partial(call, method), setting.device) for method in METHODS]
            times = seconds_each(timed, repeats(setting, 7), warm_up=2)
            for method, record in zip(METHODS, times, strict=True):
                name = f"{kind}, {batch} × {n} × {n}, {method}"
                yield Figure(name, [1e3 * s for s in record], "ms")


# ResNet and VAE


def measure_resnet(setting: Setting) -> Iterator[Figure]:
    """Measure a ResNet at 32 pixels with plain and with decorrelated batch normalisation."""
    depth, width, batch = (10, 4, 16) if setting.quick else (18, 64, 128)
    network = {"depth": depth, "base_channels": width}
    steps = {
        name: partial(build_classification, network | {"meta_layer": layer}, batch, setting)
        for name, layer in (
            ("plain batch norm", "none"),
            ("decorrelated batch norm", "decorrelated_batch_norm"),
        )
    }
    with lone_run(setting):
        yield from compare_steps(f"ResNet-{depth}, 32 px, batch {batch}", steps, batch, setting)


def build_classification(
    network: dict[str, object], batch: int, setting: Setting
) -> Callable[[], object]:
    """Build a float32 training step of a classifier on images on the device."""
    run_beside_others()
    labels = torch.arange(batch) % 10
    images = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8)
    data = LabelledArray(images, labels.numpy(), list("0123456789"), image_size=32)
    model = {"name": "resnet", "image_size": 32, "image_channels": 3, "classes": 10}
    run = RunConfig(
        task="classification",
        output=Path(tempfile.gettempdir()) / "unused",
        data={"name": "cifar10"},
        model=model | network,
        objective=ClassificationObjective(test_split="none", validation=0),
        training=TrainingConfig(batch_size=batch, conditioning_every=0, **FLOAT32),
    )
    task = ClassificationTask(run, Accelerator(mixed_precision="no"), data)
    pixels = images.to(setting.device).float() / 127.5 - 1
    given = Batch(pixels, 1, range(batch), 0, labels.to(setting.device))
    return partial(complete, partial(task.step, given), setting.device)


def measure_vae(setting: Setting) -> Iterator[Figure]:
    """Measure a step of the VAE, data loading included, beside a plain loop."""
    scale = Scale(64, 64, setting.device)
    if setting.quick:
        scale = Scale(32, 8, setting.device, (("base_channels", 4), ("hidden_dim", 32)))

    def build(precision: str) -> Callable[[], object]:
        run_beside_others()
        return partial(whole, OurLoop(scale, mixed_precision=precision))

    steps = {
        "plain, float32": lambda: partial(whole, PlainLoop(scale)),
        "ours, float32": partial(build, "no"),
        "ours, bfloat16": partial(build, "bf16"),
    }
    with lone_run(setting):
        title = f"VAE, {scale.size} px, batch {scale.batch}"
        yield from compare_steps(title, steps, scale.batch, setting)
