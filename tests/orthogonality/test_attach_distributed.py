"""Techniques on two processes do what they do on one with the joint batch, in float64."""

import os
import warnings

import pytest
import torch
from accelerate import Accelerator
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Adam, AdamW

from disentangle.distributed.dtensor import sum_over_shards
from disentangle.orthogonality import attach, resolve_parameters

PROCESSES = 2
STEPS = 3
NAMES = ("conv.weight", "up.weight", "linear.weight")
OPTIMIZERS = {
    "sgd": lambda parameters: SGD(parameters, lr=3.0, momentum=0.9),
    "adam": lambda parameters: Adam(parameters, lr=0.2),
    "fused adam": lambda parameters: Adam(parameters, lr=0.2, fused=True),
    "adamw": lambda parameters: AdamW(parameters, lr=0.2, weight_decay=0.5),
    "fused adamw": lambda parameters: AdamW(parameters, lr=0.2, weight_decay=0.5, fused=True),
}
TECHNIQUES = {
    "nog": ["nog"],
    "olr": ["olr"],
    "nog+olr": ["nog", "olr"],
    "nou": ["nou"],
    "nou+olr": ["nou", "olr"],
}


class Network(nn.Module):
    """Rows that two processes cannot share equally; of the last weight one of them has none."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, kernel_size=3, padding=1)
        self.up = nn.ConvTranspose2d(5, 2, kernel_size=2, stride=2)
        self.linear = nn.Linear(2 * 8 * 8, 1)

    def forward(self, images):
        return self.linear(self.up(self.conv(images)).tanh().flatten(1))


def make_network():
    torch.manual_seed(0)
    return Network().double()


def make_batch(step):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(8, 3, 4, 4, generator=generator, dtype=torch.float64)


def whole(tensor):
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.clone()


def watch_rates(optimizer):
    """The learning rates of each step, to be filled."""
    seen = []

    def record(optimizer, args, kwargs):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert not any(hasattr(rate, "full_tensor") for rate in rates)
        seen.append([float(rate) for rate in rates])

    optimizer.register_step_pre_hook(record)
    return seen


def train(network, optimizer, techniques, parts):
    """Trains on the batches that `parts` makes of a step; the weights and rates."""
    attach(optimizer, resolve_parameters(network, NAMES), techniques)
    rates = watch_rates(optimizer)
    for step in range(STEPS):
        optimizer.zero_grad()
        network(parts(step)).square().mean().backward()
        optimizer.step()
    return {"weights": [whole(p) for p in network.parameters()], "rates": rates}


def train_alone(optimizer, techniques):
    network = make_network()
    make_optimizer = OPTIMIZERS[optimizer]
    return train(network, make_optimizer(network.parameters()), techniques, make_batch)


def train_together(wrap, make_optimizer, techniques):
    network = wrap(make_network())
    optimizer = make_optimizer(network.parameters())

    def part(step):
        return make_batch(step).chunk(PROCESSES)[distributed.get_rank()]

    return train(network, optimizer, techniques, part)


def train_with_accelerate(make_optimizer, techniques):
    """Each step on two parts per process."""
    rank, world = str(distributed.get_rank()), str(PROCESSES)
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
    # Accelerate asks for an address, but takes the process group that there is.
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "none", "MASTER_PORT": "0"}
    accelerator = Accelerator(gradient_accumulation_steps=2)
    assert accelerator.num_processes == PROCESSES
    network = make_network()
    raw = make_optimizer(network.parameters())
    attach(raw, resolve_parameters(network, NAMES), techniques)
    rates = watch_rates(raw)
    network, optimizer = accelerator.prepare(network, raw)
    for step in range(STEPS):
        for part in make_batch(step).chunk(PROCESSES)[accelerator.process_index].chunk(2):
            with accelerator.accumulate(network):
                accelerator.backward(network(part).square().mean())
                optimizer.step()
                optimizer.zero_grad()
    return {"weights": [whole(p) for p in network.parameters()], "rates": rates}


def shard(network, shape=(PROCESSES,)):
    names = ("replicate", "shard")[-len(shape) :]
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=names)
    fully_shard(network.up, mesh=mesh)
    return fully_shard(network, mesh=mesh)


def divide(parameters):
    return ZeroRedundancyOptimizer(parameters, SGD, lr=3.0, momentum=0.9)


SHARDERS = {
    "fsdp2": shard,
    "hybrid fsdp2": lambda network: shard(network, (PROCESSES, 1)),
}
WRAPPERS = {
    "ddp": DistributedDataParallel,
    "ddp, bucket view": lambda network: DistributedDataParallel(
        network, gradient_as_bucket_view=True
    ),
    **SHARDERS,
}
CASES = [
    (wrapper, optimizer, techniques)
    for wrapper in WRAPPERS
    for optimizer in OPTIMIZERS
    for techniques in TECHNIQUES
    if optimizer == "sgd" or techniques in ("nog+olr", "nou+olr")
    if "adamw" not in optimizer or "nou" in techniques
]
ACCELERATED = [("sgd", "nog+olr"), ("adam", "nog+olr"), ("fused adamw", "nou+olr")]


def sums():
    """Of a one from every process, over the parts of a parameter."""
    one = torch.ones((), dtype=torch.float64)
    parameters = {name: wrap(make_network()).conv.weight for name, wrap in SHARDERS.items()}
    return {name: sum_over_shards(one, like) for name, like in parameters.items()}


def flatten(network, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # FSDP1 is deprecated
        return FullyShardedDataParallel(network, device_id=torch.device("cpu"), **options)


def complaint(network, make_optimizer, parameters, techniques):
    try:
        attach(make_optimizer(network.parameters()), parameters(network), techniques)
    except ValueError as error:
        return str(error)
    return "no complaint"


def complaints():
    """What is refused, by name."""
    fused = shard(make_network())
    flat, views = flatten(make_network()), flatten(make_network(), use_orig_params=True)

    def by_name(network):
        return resolve_parameters(network, NAMES)

    def as_they_are(network):
        return dict(network.named_parameters())

    def fused_sgd(parameters):
        return SGD(parameters, lr=1.0, fused=True)

    zero = DistributedDataParallel(make_network())
    return {
        "fsdp2, fused sgd": complaint(fused, fused_sgd, by_name, ["olr"]),
        "fsdp2, fused sgd, nog": complaint(fused, fused_sgd, by_name, ["nog"]),
        "fsdp1": complaint(flat, OPTIMIZERS["sgd"], as_they_are, ["nog"]),
        "fsdp1, use_orig_params": complaint(views, OPTIMIZERS["sgd"], as_they_are, ["nog"]),
        "fsdp1, by name": complaint(views, OPTIMIZERS["sgd"], by_name, ["nog"]),
        "zero": complaint(zero, divide, by_name, ["nog", "olr"]),
    }


def work(rank, folder):
    """What one of the processes does."""
    store = f"file://{folder}/store"
    distributed.init_process_group("gloo", store, rank=rank, world_size=PROCESSES)
    results = {
        (wrapper, optimizer, techniques): train_together(
            WRAPPERS[wrapper], OPTIMIZERS[optimizer], TECHNIQUES[techniques]
        )
        for wrapper, optimizer, techniques in CASES
    }
    results["zero"] = train_together(DistributedDataParallel, divide, ["nog"])
    results["complaints"] = complaints()
    results["sums"] = sums()
    for optimizer, techniques in ACCELERATED:
        results["accelerate", optimizer] = train_with_accelerate(
            OPTIMIZERS[optimizer], TECHNIQUES[techniques]
        )
    torch.save(results, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of each process. All cases in one go, since processes take long to start."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(work, (str(folder),), nprocs=PROCESSES)
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]


def check(results, alone):
    for result in results:
        assert result["rates"] == results[0]["rates"]
        torch.testing.assert_close(result["rates"], alone["rates"], atol=1e-10, rtol=0)
        torch.testing.assert_close(result["weights"], alone["weights"], atol=1e-10, rtol=0)


@pytest.mark.parametrize(("wrapper", "optimizer", "techniques"), CASES)
def test_processes_train_as_one(results, wrapper, optimizer, techniques):
    alone = train_alone(optimizer, TECHNIQUES[techniques])
    check([result[wrapper, optimizer, techniques] for result in results], alone)
    if "olr" in techniques:
        assert any(min(rates) < max(rates) for rates in alone["rates"])


def test_what_processes_hold_alike_is_counted_once(results):
    for result in results:
        assert result["sums"] == {"fsdp2": PROCESSES, "hybrid fsdp2": 1}


@pytest.mark.parametrize(("optimizer", "techniques"), ACCELERATED)
def test_accelerate_accumulates_as_one(results, optimizer, techniques):
    alone = train_alone(optimizer, TECHNIQUES[techniques])
    check([result["accelerate", optimizer] for result in results], alone)


def test_nog_with_the_zero_redundancy_optimizer(results):
    check([result["zero"] for result in results], train_alone("sgd", ["nog"]))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("fsdp2, fused sgd", "'conv.weight' is a DTensor, for which torch has fused kernels"),
        ("fsdp2, fused sgd, nog", "no complaint"),
        ("fsdp1", "(FSDP1) and DeepSpeed flatten parameters"),
        ("fsdp1, use_orig_params", "(FSDP1) and DeepSpeed flatten parameters"),
        ("fsdp1, by name", "must have at least 2 dimensions, got shape"),
        ("zero", "ZeroRedundancyOptimizer steps an optimizer inside it"),
    ],
)
def test_what_cannot_work_is_refused(results, case, message):
    for result in results:
        assert message in result["complaints"][case]
