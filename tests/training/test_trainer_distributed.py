"""Whole runs on two processes: they end as on one with the joint batch, and they end.

Under DistributedDataParallel, and under FSDP2, which divides the parameters over the processes.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.state import AcceleratorState, GradientState, PartialState
from accelerate.utils import DistributedType, DynamoBackend
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from torch import distributed, multiprocessing

from disentangle.config.parse import parse_run
from disentangle.distributed.dtensor import gather, is_sharded
from disentangle.distributed.fsdp import whole_model
from disentangle.evaluation import classify as classify_module
from disentangle.evaluation.classify import classify
from disentangle.models.weights_format import FORMAT_KEY, convert_kernel
from disentangle.train import main
from disentangle.training import batches, rng
from disentangle.training.accelerator import check_divided_run, check_launcher
from disentangle.training.resume import check_division
from disentangle.training.trainer import Trainer
from disentangle.training.vae import task as vae_module
from tests.helpers.launching import ON_CPU, on_two_processes

pytestmark = pytest.mark.slow

PROCESSES = 2
COMMON = [
    *("--training.steps", "20", "--training.log_every", "10", "--training.batch_size", "8"),
    *("--training.sample_every", "1000", "--training.ema_half_life", "50"),
    *("--orthogonality", "[nog, olr]", "--optimizer.lr", "1e-3"),
]
VAE = [
    *("--task", "vae", "--model.name", "subspace_vae", "--data.name", "sprites"),
    *("--model.image_size", "32", "--model.base_channels", "4", "--model.hidden_dim", "32"),
]
GAN = [
    *("--task", "gan", "--model.name", "eigengan", "--data.name", "sprites"),
    *("--model.image_size", "32", "--model.image_channels", "1", "--model.noise_dim", "8"),
    *("--model.base_channels", "4", "--discriminator.base_channels", "4"),
    *("--objective.r1_every", "2", "--objective.augment_probability", "0.6"),
]
SIMPLE_GAN = [
    *("--task", "gan", "--model.name", "simple_gan", "--data.name", "sprites"),
    *("--model.image_size", "64", "--model.image_channels", "1", "--model.base_channels", "2"),
    *("--discriminator.name", "simple_gan", "--discriminator.base_channels", "2"),
]
CLASSIFIER = [
    *("--task", "classification", "--model.name", "resnet", "--data.name", "digits"),
    *("--model.depth", "10", "--model.image_size", "8", "--model.image_channels", "1"),
    *("--model.base_channels", "4", "--model.meta_layer", "decorrelated_batch_norm"),
    *("--optimizer.kind", "sgd", "--training.crop_padding", "1", "--training.flip", "true"),
    *("--objective.validate_every", "10"),
]
PENALTY = "--objective.regulariser"
# A penalty of the usual weight would not show in the weights.
HEAVY = ["--objective.regulariser_weight", "0.1"]
CASES = {
    "vae": [*VAE, "--training.flip", "true"],
    "whitened vae": [*VAE, "--model.whiten_codes", "true"],
    "factor vae": [
        *(*VAE, "--objective.kind", "factor", "--objective.discriminator_dim", "32"),
        *("--training.accumulation", "2"),
    ],
    "total correlation": [*VAE, "--objective.kind", "beta_tc"],
    "gan": [*GAN, "--objective.gradient_penalty_weight", "1", "--orthogonality", "[nog, olr, ol]"],
    "hessian penalty": [*GAN, PENALTY, "hessian_penalty", *HEAVY],
    "orojar": [*GAN, PENALTY, "orojar", *HEAVY],
    "variation": [*GAN, PENALTY, "variation_predictability", *HEAVY],
    "classifier": CLASSIFIER,
    "pooled classifier": [
        *(*CLASSIFIER, "--model.meta_layer", "covariance_pooling"),
        *("--orthogonality", "[nou, olr]"),
    ],
    "norms apart": [*CLASSIFIER, "--training.join_norms", "false"],
}
ALIKE = [case for case in CASES if case != "norms apart"]
DIVIDED_CASES = {
    "vae": [*VAE, "--training.flip", "true", "--training.checkpoint_every", "10"],
    "orthogonal vae": [*VAE, "--orthogonality", "[nog, ow]", "--model.whiten_codes", "true"],
    "accumulated vae": [
        *(*VAE, "--orthogonality", "[olr, ol]", "--orthogonal_loss_weight", "0.1"),
        *("--optimizer.kind", "adamw", "--training.accumulation", "2"),
    ],
    "factor vae": CASES["factor vae"],
    "gan": [
        *(*CASES["gan"], "--training.accumulation", "2", "--training.checkpoint_every", "10"),
    ],
    "hessian penalty": CASES["hessian penalty"],
    "orojar": [*SIMPLE_GAN, PENALTY, "orojar", *HEAVY, "--orthogonality", "[ow]"],
    "variation": [*CASES["variation"], "--orthogonality", "[nog, sn]"],
    "classifier": [
        *(*CLASSIFIER, "--optimizer.kind", "adamw", "--optimizer.weight_decay", "0.1"),
        *("--orthogonality", "[nou, ow_kernel]"),
    ],
}
DIVIDED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def in_double(function):
    return lambda *arguments: function(*arguments).double()


@pytest.fixture
def _double(monkeypatch):
    """Networks, images and random numbers in float64."""
    use_double(monkeypatch.setattr)
    yield
    torch.set_default_dtype(torch.float32)


def use_double(replace):
    torch.set_default_dtype(torch.float64)
    for module in (batches, classify_module, vae_module):
        replace(module, "scale_pixels", in_double(module.scale_pixels))
    for name in ("normal", "uniform"):
        replace(rng, name, in_double(getattr(rng, name)))


def train(options, folder, **how):
    """Weights and buffers of every network, and of the average."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    trainer = Trainer(parse_run([*COMMON, *options, "--output", str(folder)])[0], **how)
    trainer.accelerator.end_training = lambda: None  # it would end the process group
    trainer.train()
    networks = {str(i): learner.raw for i, learner in enumerate(trainer.task.learners)}
    networks["average"] = trainer.average.module
    result = {
        name: {key: gather(value) for key, value in network.state_dict().items()}
        for name, network in networks.items()
    }
    if trainer.run.task == "classification":
        result["logits"] = {
            str(size): classify(
                trainer.average.module, trainer.task.held_out, trainer.accelerator, batch_size=size
            )
            for size in (5, 64)
        }
        result["images"] = len(trainer.task.held_out)
    assert trainer.accelerator.num_processes == int(os.environ.get("WORLD_SIZE", 1))
    divided = [is_sharded(p) for lone in trainer.task.learners for p in lone.raw.parameters()]
    assert divided == ["ACCELERATE_USE_FSDP" in os.environ] * len(divided)
    return result


def make_former(checkpoint):
    """Puts the last layer of an EigenGAN, its average and its moments in the format of 0.1.0."""
    names = ["pytorch_model_fsdp.bin", "optimizer.bin", "custom_checkpoint_0.pkl"]
    for file in (checkpoint / name for name in names):
        content = torch.load(file)
        tensors = content.get("state", content)
        (name,) = (name for name in tensors if name.endswith("to_image.weight"))
        found = tensors[name]
        if isinstance(found, torch.Tensor):
            tensors[name] = convert_kernel(found)
        else:
            found |= {key: convert_kernel(x) for key, x in found.items() if x.ndim == 4}
        torch.save(content, file)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    del manifest[FORMAT_KEY]
    manifest["sizes"] |= {name: (checkpoint / name).stat().st_size for name in names}
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def work(rank, folder):
    """What one of the processes does."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(PROCESSES)}
    # Accelerate asks for an address, but takes the process group that there is.
    os.environ |= {"ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "none", "MASTER_PORT": "0"}
    use_double(setattr)

    def together(options, name, **how):
        store = f"file://{folder}/{name} {len(how)}.store"
        distributed.init_process_group("gloo", store, rank=rank, world_size=PROCESSES)
        result = train(options, f"{folder}/{name}", **how)
        distributed.destroy_process_group()
        return result

    results = {case: together(options, case) for case, options in CASES.items()}
    os.environ |= DIVIDED
    for case, options in DIVIDED_CASES.items():
        results["divided", case] = together(options, f"divided {case}")
    results["resumed"] = together(
        DIVIDED_CASES["vae"], "divided vae", resume="step-10", overwrite=True
    )
    if rank == 0:  # the others wait for it to join them
        make_former(Path(folder, "divided gan", "checkpoints", "step-10"))
    results["resumed former"] = together(
        DIVIDED_CASES["gan"], "divided gan", resume="step-10", overwrite=True
    )
    torch.save(results, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Of each process. All cases in one go, since processes take long to start."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(work, (str(folder),), nprocs=PROCESSES)
    found = [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)]
    exports = {name: folder / "divided vae" / name for name in ("model", "ema")}
    found[0]["exports"] = {
        name: load_file(path / "diffusion_pytorch_model.safetensors")
        for name, path in exports.items()
    }
    return found


def check_alike(results, alone):
    for result in results:
        for size, expected in alone.get("logits", {}).items():  # in single precision
            torch.testing.assert_close(result["logits"][size], expected, atol=1e-5, rtol=0)
        own, expected = (
            {name: value for name, value in found.items() if name != "logits"}
            for found in (result, alone)
        )
        torch.testing.assert_close(own, expected, atol=1e-8, rtol=0)
    assert all(x.dtype == torch.float64 for x in alone["average"].values() if x.ndim)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a run ends with on one process, made once."""
    found = {}

    def of(options):
        if (key := tuple(options)) not in found:
            found[key] = train(options, tmp_path_factory.mktemp("alone") / "run")
        return found[key]

    return of


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("case", ALIKE)
def test_two_processes_end_as_one(results, case, alone):
    check_alike([result[case] for result in results], alone(CASES[case]))


@pytest.mark.usefixtures("_double")
@pytest.mark.parametrize("case", DIVIDED_CASES)
def test_divided_networks_end_as_whole_ones(results, case, alone):
    check_alike([result["divided", case] for result in results], alone(DIVIDED_CASES[case]))


def test_divided_networks_go_on_from_a_checkpoint(results):
    for result in results:
        whole = result["divided", "vae"]
        torch.testing.assert_close(result["resumed"], whole, atol=0, rtol=0)


def test_divided_networks_go_on_from_a_checkpoint_of_an_older_version(results):
    for result in results:
        whole = result["divided", "gan"]
        torch.testing.assert_close(result["resumed former"], whole, atol=0, rtol=0)


def test_a_checkpoint_of_whole_networks_is_refused(monkeypatch, complaint, tmp_path):
    options = [*VAE, "--output", str(tmp_path / "run"), "--training.batch_size", "8"]
    main([*options, "--training.steps", "1"])
    for name, value in DIVIDED.items():
        monkeypatch.setenv(name, value)
    assert "step-1 was written without FSDP, and can be resumed only without it" in complaint(
        main, [*options, "--training.steps", "2", "--resume"]
    )


def test_a_checkpoint_of_divided_networks_is_refused(tmp_path):
    (tmp_path / "pytorch_model_fsdp.bin").touch()
    with pytest.raises(ValueError, match=r"under FSDP, .* this run was launched without it"):
        check_division(tmp_path)


def test_divided_networks_are_written_whole(results):
    written, trained = results[0]["exports"], results[0]["divided", "vae"]
    torch.testing.assert_close(written["model"], trained["0"], atol=0, rtol=0)
    torch.testing.assert_close(written["ema"], trained["average"], atol=0, rtol=0)


def test_what_is_not_divided_is_itself():
    network = torch.nn.Linear(2, 2)
    assert whole_model(network) is network
    assert gather(network.weight) is network.weight


def test_what_join_norms_is_for(results):
    """Without it, running statistics are of each process's own images."""
    names = [name for name in results[0]["norms apart"]["0"] if name.endswith(".1.running_mean")]
    for name in names:
        one, other = (result["norms apart"]["0"][name] for result in results)
        assert (one - other).abs().max() > 1e-3, name
    name = "bn1.running_mean"  # of decorrelated batch normalisation
    one, other = (result["norms apart"]["0"][name] for result in results)
    torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_validation_images_that_processes_cannot_share_equally(results):
    """Of 29 parts, the last one smaller, one process has more; of 3 as well."""
    for result in results:
        assert result["classifier"]["images"] == 144
        logits = result["classifier"]["logits"]
        torch.testing.assert_close(logits["5"], logits["64"], atol=1e-5, rtol=0)


# How runs end


def children(pid):
    """The processes that a process has started."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False)
    return [int(child) for child in found.stdout.split()]


def launch(options):
    return subprocess.Popen(
        on_two_processes("disentangle.train", *options),
        env=ON_CPU,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def end(process, seconds):
    """What the launcher says at its end, which must come by itself and leave no process behind."""
    workers = children(process.pid)
    try:
        _, errors = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0
    assert not any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers)
    return errors


def test_a_process_that_is_killed_ends_the_run(tmp_path):
    output = ["--output", str(tmp_path / "run"), "--training.log_every", "2"]
    process = launch([*COMMON, *VAE, *output, "--training.steps", "100000"])
    metrics = tmp_path / "run" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    os.kill(children(process.pid)[1], signal.SIGKILL)
    assert "Signal 9 (SIGKILL) received" in end(process, seconds=60)


def test_an_image_that_one_process_cannot_read_ends_the_run(tmp_path):
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for i in range(9):
        Image.new("L", (40, 40), i * 20).save(images / f"{i}.png")
    (images / "8.png").write_bytes(b"no image")
    output = ["--output", str(tmp_path / "run"), "--training.steps", "100000"]
    data = ["--data.name", "folder", "--data.path", str(images), "--data.check", "false"]
    process = launch([*COMMON, *VAE, *output, *data])
    errors = end(process, seconds=120)
    assert "disentangle train: error: " in errors
    assert "8.png" in errors


# What it is launched with


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
    ],
)
def test_what_divides_parameters_is_refused_at_the_start(
    monkeypatch, complaint, tmp_path, variable, name
):
    monkeypatch.setenv(variable, "true")
    line = complaint(main, [*COMMON, *VAE, "--output", str(tmp_path / "run")])
    assert f"error: {name} divides or flattens the parameters" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("FSDP_VERSION", "1"),
        ("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT"),
        ("FSDP_AUTO_WRAP_POLICY", "SIZE_BASED_WRAP"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true"),
        ("FSDP_OFFLOAD_PARAMS", "true"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true"),
    ],
)
def test_other_ways_to_divide_are_refused_at_the_start(
    monkeypatch, complaint, tmp_path, variable, value
):
    for name, given in (DIVIDED | {variable: value}).items():
        monkeypatch.setenv(name, given)
    line = complaint(main, [*COMMON, *VAE, "--output", str(tmp_path / "run")])
    assert line.endswith(f", got {value}")
    assert f"error: {variable.lower()} of accelerate launch must be " in line
    assert not list(tmp_path.iterdir())


def pretend(kind, precision="no", backend="NO"):
    """What Accelerate says of how it was launched."""
    plugin = SimpleNamespace(backend=DynamoBackend(backend))
    return SimpleNamespace(
        distributed_type=kind,
        mixed_precision=precision,
        state=SimpleNamespace(dynamo_plugin=plugin),
    )


def test_networks_that_the_launcher_compiles_are_not_divided(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    run, _ = parse_run([*COMMON, *VAE, "--output", "run"])
    with pytest.raises(ValueError, match="the dynamo backend must be no under FSDP, got inductor"):
        check_divided_run(run, pretend(DistributedType.FSDP, backend="INDUCTOR"))


@pytest.mark.parametrize(
    ("options", "precision", "message"),
    [
        (VAE, "bf16", "the mixed precision must be no under FSDP, got bf16"),
        ([*VAE, "--training.compile", "true"], "no", "training.compile must be false"),
        ([*VAE, "--training.ema_half_life", "0"], "no", "ema_half_life must be positive"),
        ([*VAE, "--optimizer.kind", "sgd"], "no", "optimizer.kind must be adam or adamw"),
        (
            [*VAE, "--model.name", "latent_vae"],
            "no",
            "model.name must be another than latent_vae under FSDP",
        ),
        (
            [*CLASSIFIER, "--optimizer.kind", "adam", "--objective.pretrained", "weights.pth"],
            "no",
            "objective.pretrained must be left out under FSDP, got .*weights.pth",
        ),
    ],
)
def test_runs_that_cannot_be_divided_are_refused(monkeypatch, options, precision, message):
    run, _ = parse_run([*COMMON, *options, "--output", "run"])
    accelerator = pretend(DistributedType.FSDP, precision)
    check_divided_run(run, accelerator)  # FSDP is not asked for
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match=message):
        check_divided_run(run, accelerator)


def test_a_network_is_not_divided_over_one_process(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    run, _ = parse_run([*COMMON, *VAE, "--output", "run"])
    accelerator = pretend(DistributedType.NO)
    with pytest.raises(ValueError, match="needs several processes to shard networks over, got one"):
        check_divided_run(run, accelerator)


def test_processes_that_do_not_join_are_refused(monkeypatch, complaint, tmp_path):
    """As without GPUs and without ACCELERATE_USE_CPU: each would write into the run folder."""
    PartialState()  # of a process that Accelerate, in some versions, leaves on its own
    monkeypatch.setenv("WORLD_SIZE", "2")
    line = complaint(main, [*COMMON, *VAE, "--output", tmp_path / "run"])
    assert "2 processes were started, but accelerate joins 1: set ACCELERATE_USE_CPU=true" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "machines", "processes"),
    [("one_gpu", 1, 1), ("eight_gpus", 1, 8), ("two_by_eight", 2, 16), ("fsdp", 1, 8)],
)
def test_configurations_of_accelerate(file, machines, processes):
    path = f"configs/accelerate/{file}.yaml"
    loaded = load_config_from_file(path)
    assert (loaded.num_machines, loaded.num_processes) == (machines, processes)
    address = ["--main_process_ip", "10.0.0.1", "--machine_rank", "0"] if machines > 1 else []
    command = ["--config_file", path, *address, "-m", "disentangle.train"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    assert (arguments.num_machines, arguments.num_processes) == (machines, processes)
    assert arguments.use_fsdp == (file == "fsdp")
    assert arguments.multi_gpu == (processes > 1 and not arguments.use_fsdp)
    assert not any((arguments.use_deepspeed, arguments.use_cpu))


def test_the_configuration_of_fsdp_is_one_that_works(monkeypatch):
    command = ["--config_file", "configs/accelerate/fsdp.yaml", "--main_process_port", "0"]
    command += ["-m", "disentangle.train"]
    arguments, _, _ = _validate_launch_command(launch_command_parser().parse_args(command))
    for name, value in prepare_multi_gpu_env(arguments).items():
        if name.startswith(("FSDP_", "ACCELERATE_USE_")):
            monkeypatch.setenv(name, value)
    assert os.environ["ACCELERATE_USE_FSDP"] == "true"
    check_launcher()


def test_every_configuration_of_accelerate_is_known():
    files = {file.stem for file in Path("configs/accelerate").iterdir()}
    assert files == {"one_gpu", "eight_gpus", "two_by_eight", "fsdp"}
