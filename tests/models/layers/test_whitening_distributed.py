"""Decorrelated batch norm on two processes does what it does on one with the joint batch."""

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from disentangle.models.layers import DecorrelatedBatchNorm2d

PROCESSES = 2
CASES = {
    "zca": {},
    "pca": {"axes": "pca"},
    "groups": {"groups": 2},
    "no averages": {"track_running_stats": False},
    "each by itself": {"synchronise": False},
}
PARTS = {"equal": (3, 3), "unequal": (2, 4)}


def make_images():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(6, 3, 5, 5, generator=generator, dtype=torch.float64) + 2


def make_network(options):
    torch.manual_seed(0)
    norm = DecorrelatedBatchNorm2d(8, **options)
    nn.init.normal_(norm.weight)
    return nn.Sequential(nn.Conv2d(3, 8, 3), norm).double()


def pass_through(network, wrapped, images, scale):
    """Output, gradients and averages of a pass; the loss is a sum over images."""
    images = images.clone().requires_grad_()
    y = wrapped(images)
    (scale * y.pow(3).sum()).backward()
    gradients = {name: p.grad for name, p in network.named_parameters()}
    return {
        "output": y.detach(),
        "images": images.grad / scale,
        "gradients": gradients,
        "averages": dict(network.named_buffers()),
    }


def work(rank, folder):
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", store, rank=rank, world_size=PROCESSES)
    results = {}
    for case, options in CASES.items():
        for split, sizes in PARTS.items():
            network = make_network(options)
            wrapped = DistributedDataParallel(network)
            part = make_images().split(sizes)[rank]
            # The wrapper takes the mean of gradients.
            results[case, split] = pass_through(network, wrapped, part, scale=PROCESSES)
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of each process. All cases in one go, since processes take long to start."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(work, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


@pytest.mark.parametrize("case", [case for case in CASES if case != "each by itself"])
@pytest.mark.parametrize("split", PARTS)
def test_processes_whiten_as_one(results, case, split):
    network = make_network(CASES[case])
    alone = pass_through(network, network, make_images(), scale=1)
    for rank, result in enumerate(results):
        got = result[case, split]
        for name in ("output", "images"):
            part = alone[name].split(PARTS[split])[rank]
            torch.testing.assert_close(got[name], part, atol=1e-8, rtol=0)
        for name in ("gradients", "averages"):
            torch.testing.assert_close(got[name], alone[name], atol=1e-8, rtol=0)


def test_each_by_itself(results):
    for rank, result in enumerate(results):
        network = make_network({})
        part = make_images().split(PARTS["equal"])[rank]
        alone = pass_through(network, network, part, scale=1)
        got = result["each by itself", "equal"]
        torch.testing.assert_close(got["output"], alone["output"])
        torch.testing.assert_close(got["images"], alone["images"])
