"""Variation predictability (VP).

Zhu, Xu and Tao, Learning Disentangled Representations with Latent Variation Predictability,
ECCV 2020, https://arxiv.org/abs/2007.12885; and its code,
https://github.com/zhuxinqimac/VP-metric-pytorch.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from disentangle.metrics.decoding import CheckedDecoder
from disentangle.metrics.inputs import check_at_least
from disentangle.metrics.latent_pairs import as_coordinates, decode_pairs, draw_latents
from disentangle.metrics.results import Result

MINIMUM_SIZE = 16  # of an image, in pixels: the classifier halves it twice
TEST_CHUNK = 256  # pairs that are classified at once
Epoch = Literal["last", "best"]


@dataclass(frozen=True, eq=False)
class VariationPredictabilityResult(Result):
    """Result of `variation_predictability`.

    Attributes:
        score: Mean of `scores`.
        std: Standard deviation of `scores`; NaN with one seed.
        scores: Top-1 accuracy on the test pairs for each seed, shape `(S,)`.
        train_scores: Accuracies of the same classifiers on the training pairs, shape `(S,)`.
        confusion: Test pairs of each true and each predicted latent, over all seeds, `(K, K)`.
        chance: `1 / K`.
        test_ratio: Share of the pairs that the classifiers were tested on.
        train_pairs: Pairs that each classifier was trained on.
        test_pairs: Pairs that it was tested on.
        caveat: Says so if the images look like `[0, 1]`; else empty.
    """

    undefined = frozenset({"std"})

    score: float
    std: float
    scores: np.ndarray
    train_scores: np.ndarray
    confusion: np.ndarray
    chance: float
    test_ratio: float
    train_pairs: int
    test_pairs: int
    caveat: str = ""


def variation_predictability(
    decode: Callable[[Tensor], Tensor],
    sample: Callable[[int, torch.Generator], Tensor],
    *,
    coordinates: Sequence[int] | None = None,
    uniform_range: float | None = None,
    truncation: float = 1.0,
    pairs: int = 10_000,
    test_ratio: float = 0.9,
    epochs: int = 200,
    learning_rate: float = 0.01,
    batch_size: int = 32,
    width: int = 64,
    epoch: Epoch = "last",
    seeds: Sequence[int] = (0, 1, 2),
    decode_batch_size: int = 64,
    progress: Callable[[int, int], object] | None = None,
) -> VariationPredictabilityResult:
    """Accuracy of a small network that predicts the changed latent from two images' difference.

    Zhu et al. 2020, https://arxiv.org/abs/2007.12885: the latents of a pair of images differ in one
    coordinate, drawn at random; a convolutional classifier is trained on some of the pairs and
    tested on the others.

    Range: from about `1 / K`, chance, to 1, for `K` latents. Latents that do nothing keep it low.
    It depends on `K`, so compare generators with equally many latents, and on `test_ratio`, so that
    the result states it.

    Blind to meaning: what is easy to tell apart need not be what a person would call one factor,
    and a rotation of perfect latents whose effects look different scores high. The classifier
    averages over the image: of a change that is more than 30 pixels from the border it cannot tell
    where it is, except to the next multiple of 4.

    Protocol: 10,000 pairs; `test_ratio` 0.9 with learning rate 0.01 and 200 epochs (Zhu et al.), or
    0.99 with 0.0005 and 300 (OroJaR, Wei et al., ICCV 2021, https://arxiv.org/abs/2108.07668);
    batches of 32, Adam; mean over several seeds, each of new pairs, a new split and a new
    classifier. Both draw latents from U(−2, 2); Song et al. 2022, https://arxiv.org/abs/2212.05599,
    draw those of EigenGAN's blocks from U(−4, 4), with noise from the prior times 0.7.
    `uniform_range`, `coordinates` and `truncation` say so. By default latents come from the prior,
    whose coordinates must be independent.

    Where this differs from the published code: differences stay in memory in half precision, with
    11 bits for each, instead of passing through JPEG files; more than 100 latents and images with
    one channel work; and the score is that of the last epoch. The published one is the best of all
    epochs on the test pairs, `epoch="best"`, which is too good by what single epochs scatter: 0.02
    in trials with 6 latents and 600 training pairs; with 100 pairs epochs scatter by 0.1.

    Args:
        decode: Gives images `(N, C, H, W)` in `[-1, 1]`, 16 pixels or more, of latents `(N, D)`;
            called without a gradient, for the first batch twice. It must treat equal latents
            alike: fix its noise.
        sample: Gives `n` draws of the prior, shape `(n, D)`, of `n` and a generator.
        coordinates: The `K` latents that can change; by default all of them.
        uniform_range: `r` of `U(−r, r)` that these are drawn from; by default the prior.
        truncation: Factor of the latents that cannot change, such as the noise of an EigenGAN.
        pairs: Number of pairs; they take `2 · pairs · C · H · W` bytes.
        test_ratio: Share of the pairs for testing.
        epochs: How often the classifier sees the training pairs.
        learning_rate: Learning rate of Adam.
        batch_size: Training pairs per step.
        width: Channels of the classifier's first layers.
        epoch: Which epoch's accuracy counts: `"last"`, or the `"best"` on the test pairs.
        seeds: One run for each.
        decode_batch_size: Images decoded at once, at least 2.
        progress: Called with how many epochs of training are done, of how many over all seeds.

    Raises:
        ValueError: If an argument is out of its range, shapes do not fit, there are fewer than two
            latents, an image is not finite or beyond `[-1, 1]`, or the images of a batch differ
            when it is decoded again.
        FloatingPointError: If a classifier diverges.

    Examples:
        >>> stripes = torch.linspace(0, 40, 256).sin().view(16, 16)
        >>> patterns = torch.stack([stripes, stripes.T])  # (2, 16, 16)
        >>> decode = lambda z: (z.tanh() @ patterns.flatten(1)).view(-1, 1, 16, 16) / 2
        >>> prior = lambda n, generator: torch.randn(n, 2, generator=generator)
        >>> few = dict(pairs=200, test_ratio=0.5, epochs=8, width=4, seeds=[0])
        >>> variation_predictability(decode, prior, **few).score > 0.8
        True
    """
    check_at_least(1, epochs=epochs, batch_size=batch_size, width=width)
    check_at_least(2, decode_batch_size=decode_batch_size, pairs=pairs)
    test_pairs = _check_protocol(
        pairs, test_ratio, learning_rate, uniform_range, truncation, epoch, seeds
    )
    report = _count_calls(progress, epochs * len(seeds))
    checked = CheckedDecoder(decode)
    runs = [
        _run(
            checked,
            _PairSampler(sample, coordinates, uniform_range, truncation, pairs),
            torch.Generator().manual_seed(seed),
            decode_batch_size=decode_batch_size,
            test_pairs=test_pairs,
            fit=_Fit(epochs, learning_rate, batch_size, width, epoch, report),
        )
        for seed in seeds
    ]
    confusions, train_confusions = (np.stack(counts) for counts in zip(*runs, strict=True))
    scores, train_scores = (
        np.trace(counts, axis1=1, axis2=2) / counts[0].sum()  # (S, K, K) -> (S,)
        for counts in (confusions, train_confusions)
    )
    return VariationPredictabilityResult(
        score=float(scores.mean()),
        std=float(scores.std(ddof=1)) if len(scores) > 1 else float("nan"),
        scores=scores,
        train_scores=train_scores,
        confusion=confusions.sum(axis=0),
        chance=1 / confusions.shape[1],
        test_ratio=test_ratio,
        train_pairs=pairs - test_pairs,
        test_pairs=test_pairs,
        caveat=checked.caveat,
    )


def build_classifier(channels: int, classes: int, width: int = 64) -> nn.Sequential:
    """The classifier of Zhu et al.: four convolutions, the mean over the image, a linear layer.

    Logits `(N, classes)` of differences `(N, channels, H, W)`.
    """

    def layers(narrow: int, wide: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
        padding = kernel // 2
        convolution = nn.Conv2d(narrow, wide, kernel, stride, padding, bias=False)
        return [convolution, nn.BatchNorm2d(wide), nn.ReLU()]

    return nn.Sequential(
        *layers(channels, width, kernel=7, stride=2),
        *layers(width, width),
        nn.MaxPool2d(3, stride=2, padding=1),
        *layers(width, 2 * width),
        *layers(2 * width, 4 * width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Some rows of the differences `(N, C, H, W)` and of which latent made them `(N,)`.

    Both stay on the CPU, in one copy; `device` is that of the classifier.
    """

    differences: Tensor
    labels: Tensor
    rows: Tensor
    device: torch.device

    def iterate_batches(self, order: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches in an order of the rows, where the classifier is and in its precision."""
        for rows in self.rows[order].split(size):
            yield self.differences[rows].to(self.device).float(), self.labels[rows].to(self.device)


@dataclass(frozen=True)
class _Fit:
    """Options of fitting a classifier, as in `variation_predictability`."""

    epochs: int
    learning_rate: float
    batch_size: int
    width: int
    epoch: Epoch
    report: Callable[[], object]

    def iterate_epochs(
        self, classifier: nn.Module, pairs: _Pairs, generator: torch.Generator
    ) -> Iterator[None]:
        """Trains in place, and pauses after each epoch whose accuracy can count."""
        optimizer = torch.optim.Adam(classifier.parameters(), lr=self.learning_rate)
        for number in range(1, self.epochs + 1):
            classifier.train()
            order = torch.randperm(len(pairs.rows), generator=generator)
            for differences, labels in pairs.iterate_batches(order, self.batch_size):
                loss = functional.cross_entropy(classifier(differences), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            self.report()
            if self.epoch == "best" or number == self.epochs:
                yield


@dataclass(frozen=True)
class _PairSampler:
    """Draws pairs of latents that differ in one coordinate."""

    sample: Callable[[int, torch.Generator], Tensor]
    coordinates: Sequence[int] | None
    uniform_range: float | None
    truncation: float
    pairs: int

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
        """Latents `(N, D)` and `(N, D)`, which of the `K` differs `(N,)`, and `K`."""
        first, second = (self._draw_latents(generator) for _ in range(2))
        movable = as_coordinates(self.coordinates, first.shape[1])
        if len(movable) < 2:
            raise ValueError(f"there must be at least 2 latents to tell apart, got {len(movable)}")
        labels = torch.randint(len(movable), (self.pairs,), generator=generator)
        rows, moved = torch.arange(self.pairs), movable[labels]
        changed = first.clone()
        changed[rows, moved] = second[rows, moved]
        return first, changed, labels, len(movable)

    def _draw_latents(self, generator: torch.Generator) -> Tensor:
        z = draw_latents(self.sample, self.pairs, generator)
        movable = as_coordinates(self.coordinates, z.shape[1]).to(z.device)
        z = (self.truncation * z).index_copy(1, movable, z[:, movable])
        if self.uniform_range is None:
            return z
        uniform = 2 * torch.rand(self.pairs, len(movable), generator=generator) - 1
        return z.index_copy(1, movable, (self.uniform_range * uniform).to(z))


def _count_calls(progress: Callable[[int, int], object] | None, total: int) -> Callable[[], object]:
    """Tells `progress` how often it was called, of how often it will be."""
    count = itertools.count(1)
    return lambda: None if progress is None else progress(next(count), total)


def _run(
    decode: CheckedDecoder,
    sampler: _PairSampler,
    generator: torch.Generator,
    *,
    decode_batch_size: int,
    test_pairs: int,
    fit: _Fit,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws pairs, splits them, trains a classifier.

    Returns:
        Test and training pairs of each true and each predicted latent, `(K, K)` and `(K, K)`.
    """
    first, second, labels, classes = sampler.draw(generator)
    differences, device = _decode_differences(decode, first, second, decode_batch_size)
    splits = torch.randperm(len(labels), generator=generator).tensor_split([test_pairs])
    test, train = (_Pairs(differences, labels, rows, device) for rows in splits)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        classifier = build_classifier(differences.shape[1], classes, fit.width).to(device)
    counts = [
        (_count(classifier, test, classes), _count(classifier, train, classes))
        for _ in fit.iterate_epochs(classifier, train, generator)
    ]
    return max(counts, key=lambda pair: np.trace(pair[0]))


def _decode_differences(
    decode: CheckedDecoder, first: Tensor, second: Tensor, batch_size: int
) -> tuple[Tensor, torch.device]:
    """Differences `(N, C, H, W)` of images, on the CPU, and where the images were."""
    differences = torch.empty(0)
    for rows in torch.arange(len(first)).split(batch_size // 2):
        before, after = decode_pairs(decode, first[rows], second[rows])
        if min(before.shape[2:]) < MINIMUM_SIZE:
            raise ValueError(
                f"decode must give images with at least {MINIMUM_SIZE} pixels in height and "
                f"width, got {tuple(before.shape[2:])}"
            )
        if not len(differences):
            # filled in place: a second copy may not fit
            differences = torch.empty(len(first), *before.shape[1:], dtype=torch.half)
        differences[rows] = (before.float() - after.float()).half().cpu()
    return differences, before.device


@torch.no_grad()
def _count(classifier: nn.Module, pairs: _Pairs, classes: int) -> np.ndarray:
    """Pairs of each true and each predicted latent, shape `(K, K)`."""
    classifier.eval()
    cells = torch.zeros(classes**2, dtype=torch.int64)
    for differences, labels in pairs.iterate_batches(torch.arange(len(pairs.rows)), TEST_CHUNK):
        logits = classifier(differences)
        if not logits.isfinite().all():  # their largest would be the first
            raise FloatingPointError("the classifier diverged: choose a lower learning_rate")
        found = labels * classes + logits.argmax(dim=1)
        cells += torch.bincount(found.cpu(), minlength=classes**2)
    return cells.view(classes, classes).numpy()  # (K·K,) -> (K, K)


def _check_protocol(
    pairs: int,
    test_ratio: float,
    learning_rate: float,
    uniform_range: float | None,
    truncation: float,
    epoch: str,
    seeds: Sequence[int],
) -> int:
    """The number of test pairs."""
    if not 0 < test_ratio < 1 or not 1 <= round(pairs * test_ratio) < pairs:
        raise ValueError(
            f"test_ratio must leave pairs for training and for testing, got {test_ratio} of {pairs}"
        )
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive, got {learning_rate}")
    if uniform_range is not None and not uniform_range > 0:
        raise ValueError(f"uniform_range must be positive, got {uniform_range}")
    if not 0 <= truncation < math.inf:
        raise ValueError(f"truncation must be finite and not negative, got {truncation}")
    if epoch not in get_args(Epoch):
        raise ValueError(f"epoch must be one of {', '.join(get_args(Epoch))}, got {epoch!r}")
    if len(seeds) == 0:
        raise ValueError("there must be at least one seed, got none")
    return round(pairs * test_ratio)
