"""What tests share."""

import os

# Before PyTorch is imported, and for the processes that tests start: several processes on few cores
# take many times longer with several threads each, which wait for each other and spin.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from hypothesis import HealthCheck, settings

from tests.helpers.waiting import CountScalars

# HYPOTHESIS_PROFILE=thorough looks for what breaks, `quick` whether something that held still does.
settings.register_profile(
    "quick",
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile(
    "thorough", settings.get_profile("quick"), max_examples=2000, derandomize=False, print_blob=True
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def tiny_vae(tmp_path):
    """Options of a VAE run that trains for a moment, in `tmp_path / "run"`."""
    return [
        *("--task", "vae", "--model.name", "subspace_vae", "--data.name", "sprites"),
        *("--model.image_size", "32", "--model.base_channels", "4", "--model.hidden_dim", "32"),
        *("--training.steps", "6", "--training.batch_size", "8", "--training.log_every", "2"),
        *("--orthogonality", "[nog, olr]", "--training.checkpoint_every", "3"),
        *("--output", str(tmp_path / "run")),
    ]


@pytest.fixture
def tiny_gan(tmp_path):
    """Options of an EigenGAN run that trains for a moment, in `tmp_path / "run"`."""
    return [
        *("--task", "gan", "--model.name", "eigengan", "--data.name", "sprites"),
        *("--model.image_size", "32", "--model.image_channels", "1", "--model.noise_dim", "8"),
        *("--model.base_channels", "4", "--discriminator.base_channels", "4"),
        *("--objective.r1_every", "2", "--training.ema_half_life", "100"),
        *("--training.steps", "6", "--training.batch_size", "8", "--training.log_every", "2"),
        *("--orthogonality", "[nog, olr, ol]", "--training.checkpoint_every", "3"),
        *("--output", str(tmp_path / "run")),
    ]


@pytest.fixture(autouse=True)
def _fresh_process():
    """A run sets the threads of its process; Accelerate keeps state, also in the environment."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture
def complaint(capsys):
    """`complaint(main, arguments)` is the one line that a command prints of bad input."""

    def of(main, arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main([str(argument) for argument in arguments])
        assert exited.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        return line

    return of


@pytest.fixture
def count_scalars():
    """`with count_scalars() as count: …` leaves in `count.calls` what waited for a value."""
    return CountScalars
