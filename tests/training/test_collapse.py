import copy
import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from disentangle.metrics import activeness
from disentangle.models import Axis, EigenGAN, SimpleGAN, SubspaceVAE
from disentangle.runs.metrics_log import activeness_name, split_activeness_name
from disentangle.training.collapse import CollapseWatch, find_collapses, measure_subspaces


def history(**curves):
    """Measurements at the steps 10, 20, … with the values of each subspace."""
    rows = zip(*curves.values(), strict=True)
    return [(10 * i, dict(zip(curves, row, strict=True))) for i, row in enumerate(rows, start=1)]


class Painter(nn.Module):
    """Two pixels, each in the brightness of one latent of its own group, and a latent for both."""

    latent_dim = 3

    def __init__(self, gains=(0.3, 0.2)):
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(gains))
        self.dropout = nn.Dropout(0.9)
        self.norm = nn.BatchNorm2d(1).eval()
        self.bases = []

    @property
    def axes(self):
        groups = ("left", "right", "right")
        directions = torch.eye(3)
        return tuple(Axis(str(i), g, directions[i], std=0.5) for i, g in enumerate(groups))

    def sample_latents(self, n, generator=None):
        self.bases.append(torch.randn(n, 3, generator=generator))
        return self.bases[-1]

    def decode(self, z):
        assert not torch.is_grad_enabled()
        images = (self.gains * z[:, :2])[:, None, None]  # (N, 2) -> (N, 1, 1, 2)
        return self.norm(self.dropout(images))


# The decision


def test_a_subspace_that_falls_asleep_is_found_once():
    falling = [0.1, 0.1, 5e-4, 4e-4, 3e-4, 2e-4, 0.1, 1e-4, 1e-4, 1e-4]
    (found,) = find_collapses(history(a=[0.05] * 10, b=falling))
    assert (found.group, found.step, found.activeness) == ("b", 50, 3e-4)
    assert found.reference == 0.1
    assert str(found) == (
        "b has all but stopped changing the image: activeness 0.0003 of 0.1 (its largest) at step "
        "50"
    )


def test_a_subspace_that_never_wakes_up_is_found():
    asleep = [3e-4, 2e-4, 3.2e-4, 3e-4]
    (found,) = find_collapses(history(a=[0.1] * 4, b=asleep, c=[0.3] * 4))
    assert (found.group, found.step) == ("b", 40)
    assert found.reference == pytest.approx(0.2)
    assert str(found).startswith("b hardly changes the image: activeness 0.0003 of 0.2 (the mean")


def test_the_only_subspace_is_compared_with_itself():
    assert find_collapses(history(codes=[1e-6] * 5)) == []
    (found,) = find_collapses(history(codes=[0.1, 0.1, 1e-6, 1e-6, 1e-6]))
    assert found.step == 50


def test_all_at_once_are_found_too():
    gone = [0.1, 0.1, 1e-5, 1e-5, 1e-5]
    assert [c.group for c in find_collapses(history(a=gone, b=gone))] == ["a", "b"]
    assert [c.step for c in find_collapses(history(a=[0.0] * 3))] == [30]


@pytest.mark.parametrize(
    "curves",
    [
        {"a": [0.1] * 5, "b": [0.002] * 5},  # weak, but more than a hundredth
        {"a": [0.1] * 5, "b": [0.1, 1e-4, 1e-4, 0.1, 1e-4]},  # not three in a row
        # an EigenGAN's first steps, and those of its running average
        {
            "a": [3e-6, 1e-3, 1e-4, 5e-3],
            "b": [1e-4, 2e-4, 2e-5, 0.01],
            "c": [5e-3, 1e-3, 5e-5, 5e-3],
        },
        {"a": [4e-6, 9e-6, 1.1e-5, 4e-5, 3e-4], "b": [5e-3, 6e-3, 6e-3, 9e-3, 0.02]},
        {"a": [0.1, math.nan, math.nan, math.nan], "b": [0.1] * 4},
        {},
    ],
)
def test_no_false_alarm(curves):
    assert find_collapses(history(**curves)) == []


def test_share_and_patience_can_be_chosen():
    curves = history(a=[0.1] * 4, b=[0.1, 0.02, 0.02, 0.02])
    assert find_collapses(curves) == []
    assert [c.step for c in find_collapses(curves, share=0.2)] == [40]
    assert [c.step for c in find_collapses(curves, share=0.2, patience=1)] == [20]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_the_contrast_of_the_images_does_not_matter(scale):
    curves = {"a": [0.1] * 5, "b": [0.1, 0.1, 1e-4, 1e-4, 1e-4], "c": [0.01] * 5}
    scaled = {name: [scale * value for value in values] for name, values in curves.items()}
    assert [(c.group, c.step) for c in find_collapses(history(**scaled))] == [("b", 50)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"share": 0.0}, "share must be between 0 and 1, got 0.0"),
        ({"share": 1.0}, "share must be between 0 and 1, got 1.0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
    ],
)
def test_bad_thresholds_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        find_collapses([], **options)
    with pytest.raises(ValueError, match=message):
        CollapseWatch(every=1, say=print, **options)


# The measurement


def test_known_activeness_of_groups():
    # Values −1, 0 and 1 have the variance 1; half of the pixels see it, one axis sees none.
    found = measure_subspaces(Painter())
    assert list(found) == ["left", "right"]
    assert found["left"] == pytest.approx(0.3**2 / 2, rel=1e-4)
    assert found["right"] == pytest.approx((0.2**2 / 2 + 0) / 2, rel=1e-4)


@pytest.mark.parametrize(
    "generator",
    [
        EigenGAN(image_size=32, base_channels=4, noise_dim=8, basis_dim=2),
        SubspaceVAE(image_size=32, code_dim=3),
        SimpleGAN(image_size=64, latent_dim=3, base_channels=4),
    ],
    ids=lambda generator: type(generator).__name__,
)
def test_is_the_mean_of_the_metric(generator):
    found = measure_subspaces(generator, samples=4, seed=5)
    latents = generator.sample_latents(4, torch.Generator().manual_seed(5))
    directions = torch.stack([axis.direction for axis in generator.axes])
    per_axis = activeness(generator.eval().decode, latents, directions).per_axis
    # Of a single group, each axis by itself.
    single = len({axis.group for axis in generator.axes}) == 1
    names = [axis.name if single else axis.group for axis in generator.axes]
    assert list(found) == list(dict.fromkeys(names))
    for name, value in found.items():
        own = [v for v, other in zip(per_axis, names, strict=True) if other == name]
        assert value == pytest.approx(sum(own) / len(own), rel=1e-9)
    assert all(value > 0 for value in found.values())


def test_measuring_changes_nothing():
    generator = EigenGAN(image_size=32, base_channels=4, noise_dim=8, pre_svd_weight="spectral")
    generator.train()
    generator.to_image.eval()
    modes = [part.training for part in generator.modules()]
    state = copy.deepcopy(generator.state_dict())
    random = torch.random.get_rng_state()
    CollapseWatch(every=1, say=print).measure(1, generator)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert [part.training for part in generator.modules()] == modes
    for name, value in generator.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert all(parameter.requires_grad for parameter in generator.parameters())


def test_modes_come_back_after_an_error():
    generator = Painter(gains=(math.nan, 0.2))
    with pytest.raises(FloatingPointError, match="an image of the generator is not finite"):
        measure_subspaces(generator)
    assert generator.dropout.training
    assert not generator.norm.training


def test_the_latents_are_the_same_each_time():
    generator = Painter()
    watch = CollapseWatch(every=2, say=print, samples=5)
    first, _, second = (watch.measure(step, generator) for step in (2, 3, 4))
    assert first == second
    assert torch.equal(*generator.bases)
    assert len(generator.bases[0]) == 5


# The watch


def test_only_steps_that_are_due_are_measured():
    generator = Painter()
    watch = CollapseWatch(every=3, say=print)
    found = {step: watch.measure(step, generator) for step in range(1, 8)}
    assert [step for step, values in found.items() if values] == [3, 6]
    assert [step for step, _ in watch.history] == [3, 6]
    values = found[6]
    assert list(values) == ["activeness/left", "activeness/right"]
    assert all(value.shape == () for value in values.values())
    assert values["activeness/left"].item() == pytest.approx(0.3**2 / 2, rel=1e-4)


def kill(generator, group):
    with torch.no_grad():
        generator.gains[group] = 0


def test_a_collapse_is_said_once():
    said, generator = [], Painter()
    watch = CollapseWatch(every=10, say=said.append)
    for step in range(10, 100, 10):
        if step == 30:
            kill(generator, 0)
        watch.measure(step, generator)
    assert said == [
        "left has all but stopped changing the image: activeness 0 of 0.045 (its largest) at step "
        "50"
    ]


@pytest.mark.parametrize("stop", [20, 40, 50, 70])
def test_a_resumed_watch_goes_on_where_it_was(stop):
    said, lines, generator = [], [], Painter()

    def measure(watch, steps):
        for step in steps:
            if step == 30:
                kill(generator, 0)
            values = {name: value.item() for name, value in watch.measure(step, generator).items()}
            lines.append({"step": step, "loss": 1.0, **values})

    first = CollapseWatch(every=10, say=said.append)
    measure(first, range(5, stop + 1, 5))
    second = CollapseWatch(every=10, say=said.append)
    second.restore(lines)
    assert second.history == first.history
    measure(second, range(stop + 5, 100, 5))
    assert len(said) == 1
    assert "at step 50" in said[0]


def test_lines_without_a_value_are_passed_over():
    watch = CollapseWatch(every=10, say=print)
    name = activeness_name("left")
    watch.restore([{"step": 5}, {"step": 10, name: None}, {"step": 20, name: 0.5, "loss": 1.0}])
    assert watch.history == [(20, {"left": 0.5})]


def test_the_running_average_can_be_watched():
    generator = EigenGAN(image_size=32, base_channels=4, noise_dim=8, basis_dim=2)
    average = AveragedModel(generator, use_buffers=True).requires_grad_(False).eval()
    watch = CollapseWatch(every=1, say=print)
    raw, mean = watch.measure(1, generator), watch.measure(2, average.module)
    assert raw == mean
    with torch.no_grad():
        generator.blocks[1].subspace.U.zero_()
    assert watch.measure(3, average.module) == mean
    assert watch.measure(4, generator)["activeness/block 1"] == 0


@pytest.mark.parametrize("options", [{"every": 0}, {"every": 1, "samples": 0}])
def test_bad_watches_are_refused(options):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        CollapseWatch(say=print, **options)


def test_names_there_and_back():
    assert split_activeness_name(activeness_name("a/b 1")) == "a/b 1"
    for name in ("activeness", "activeness/", "loss/activeness", "step"):
        assert split_activeness_name(name) is None
