import os
import signal

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from disentangle.data import Digits, RenderedSprites, scale_pixels
from disentangle.training.batches import Batch, StepSampler, load_batches
from disentangle.training.rng import Purpose


def sampler(*, size=10, batch_size=4, samples=None, seed=0, first=1, last=5):
    samples = range(batch_size) if samples is None else samples
    return StepSampler(
        size=size, batch_size=batch_size, samples=samples, seed=seed, first=first, last=last
    )


def test_each_epoch_reads_every_image_once():
    indices = [index for share in sampler() for index in share]
    assert sorted(indices[:10]) == sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]


def test_a_resumed_run_reads_on_where_it_stopped():
    assert list(sampler(first=4)) == list(sampler())[3:]


def test_two_processes_share_the_joint_batch():
    shares = zip(sampler(samples=range(2)), sampler(samples=range(2, 4)), strict=True)
    assert [a + b for a, b in shares] == list(sampler())


def test_seeds_differ():
    assert list(sampler(seed=1)) != list(sampler(seed=2))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_images_on_the_device(workers):
    data = RenderedSprites(image_size=32)
    source = sampler(size=len(data), last=3)
    device = torch.device("cpu")
    batches = list(load_batches(data, source, device=device, workers=workers))
    assert [batch.step for batch in batches] == [1, 2, 3]
    assert batches[0].images.shape == (4, 1, 32, 32)
    assert batches[0].images.dtype == torch.float32
    assert set(batches[0].images.unique().tolist()) == {-1.0, 1.0}
    expected = data.__getitems__(list(source)[1]).float() / 127.5 - 1
    assert torch.equal(batches[1].images, expected)


class Broken(RenderedSprites):
    """A data set of which nothing can be read."""

    def _images(self, indices):
        raise OSError(f"cannot read image {indices[0]}")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_one_line_from_a_worker_too(workers):
    broken = load_batches(
        Broken(image_size=32), sampler(), device=torch.device("cpu"), workers=workers
    )
    with pytest.raises(OSError, match=r"^cannot read image \d$"):
        next(broken)


class Greedy(RenderedSprites):
    """A data set for which there is not enough memory."""

    def _images(self, indices):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_is_killed():
    greedy = load_batches(Greedy(image_size=32), sampler(), device=torch.device("cpu"), workers=1)
    with pytest.raises(
        OSError, match=r"^a process that decodes images ended unexpectedly \(out of memory"
    ):
        next(greedy)


def test_labels_go_with_their_images_and_their_parts():
    data = Digits()
    source = sampler(size=len(data), last=2)
    batches = list(load_batches(data, source, device=torch.device("cpu"), workers=0))
    for indices, batch in zip(source, batches, strict=True):
        assert torch.equal(batch.images, scale_pixels(data.__getitems__(indices)))
        assert batch.labels.tolist() == data.labels[indices].tolist()
    parts = batches[0].split(2)
    assert torch.equal(torch.cat([part.labels for part in parts]), batches[0].labels)


def batch(n=64):
    return Batch(torch.randn(n, 3, 4, 4), step=7, samples=range(n), seed=0)


def test_parts_draw_what_the_whole_draws():
    whole = batch(8)
    parts = whole.split(4)
    assert [len(part.images) for part in parts] == [2, 2, 2, 2]
    joined = torch.cat([part.normal(Purpose.LATENT, 5) for part in parts])
    assert torch.equal(joined, whole.normal(Purpose.LATENT, 5))


@pytest.mark.skipif(
    torch.__version__.startswith("2.8.") and not torch.cuda.is_available(),
    reason="PyTorch 2.8 asks for a driver even where tensors have no values",
)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_draws_are_pinned_on_their_way_to_a_gpu(device, monkeypatch):
    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: pinned.append(x.device.type) or x)
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.empty(2, 1, 4, 4, device=device)
        draws = Batch(images, step=1, samples=range(2), seed=0).uniform(Purpose.MIXING, 3)
    assert (draws.device.type, tuple(draws.shape)) == (device, (2, 3))
    assert pinned == (["cpu"] if device == "cuda" else [])
