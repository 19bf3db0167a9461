import json
import shutil

import pytest
import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import distributed, nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel

from disentangle.config.parse import parse_run
from disentangle.models import Encoder, Generator, load_model
from disentangle.models.latent_vae import LatentVAE
from disentangle.orthogonality import WEIGHT_CONSTRAINTS, resolve_parameters
from disentangle.training.batches import Batch
from disentangle.training.rng import Purpose
from disentangle.training.trainer import Trainer
from disentangle.training.vae.task import VAETask
from disentangle.traverse import main as traverse

WEIGHTS = "diffusion_pytorch_model.safetensors"
TINY = {"block_out_channels": [4, 4], "norm_num_groups": 2}
OPTIONS = {"image_size": 32, "image_channels": 1, "base_channels": 4, "hidden_dim": 16}


@pytest.fixture
def folder(tmp_path):
    """A folder as diffusers writes it, of an autoencoder with attention and a scaling factor."""
    AutoencoderKL(
        in_channels=1,
        out_channels=1,
        block_out_channels=(4, 4),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=2,
        norm_num_groups=2,
        scaling_factor=0.5,
    ).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture
def frozen(folder):
    return LatentVAE(autoencoder=str(folder), train_autoencoder=False, **OPTIONS)


def build(**changes):
    return LatentVAE(**OPTIONS | {"autoencoder": TINY} | changes)


def change_weights(folder, change):
    weights = load_file(folder / WEIGHTS)
    save_file(change(weights), folder / WEIGHTS)


@pytest.mark.parametrize("network", ["conv", "residual"])
@pytest.mark.parametrize(("image_size", "depth"), [(32, 3), (64, 3), (32, 1)])
@pytest.mark.parametrize("subspace_count", [1, 2])
def test_shapes(network, image_size, depth, subspace_count):
    model = build(
        image_size=image_size,
        image_channels=3,
        autoencoder={"block_out_channels": [4] * depth, "norm_num_groups": 2, "latent_channels": 2},
        network=network,
        subspace_count=subspace_count,
        code_dim=5,
    )
    images = model.decode(model.sample_latents(3))
    assert images.shape == (3, 3, image_size, image_size)
    output = model(images, torch.randn(3, 5))
    assert output.reconstruction.shape == images.shape
    assert output.mean.shape == output.log_variance.shape == model.encode(images).shape == (3, 5)
    assert len(model.pre_svd_parameters()) == subspace_count
    latents = image_size >> (depth - 1)
    assert model.decoder(output.mean).shape == (3, 2, latents, latents)


def test_protocols():
    model = build()
    assert isinstance(model, Generator)
    assert isinstance(model, Encoder)
    assert [axis.direction.argmax().item() for axis in model.axes] == list(range(10))


def test_images_are_within_their_range():
    model = build()
    with torch.no_grad():
        model.kl.decoder.conv_out.weight.mul_(100)
    assert model.decode(model.sample_latents(4)).abs().max() == 1


def test_a_frozen_autoencoder_gives_the_target(frozen):
    images = torch.rand(4, 1, 32, 32) * 2 - 1
    output = frozen(images, torch.zeros(4, 10))
    moments = frozen.kl.quant_conv(frozen.kl.encoder(images))
    assert torch.equal(output.target, 0.5 * moments[:, :2])
    assert not output.target.requires_grad
    assert torch.equal(output.reconstruction, frozen.decoder(output.mean))
    assert torch.equal(frozen.encode(images), output.mean)
    made = frozen.kl.decode(output.reconstruction / 0.5).sample.clamp(-1, 1)
    assert torch.equal(frozen.decode(output.mean), made)


def test_a_frozen_autoencoder_has_no_gradient_and_stays_in_evaluation(frozen):
    assert not any(part.training for part in frozen.train().kl.modules())
    assert frozen.encoder.training
    output = frozen(torch.rand(4, 1, 32, 32), torch.randn(4, 10))
    (output.reconstruction.square().sum() + output.log_variance.sum()).backward()
    for name, parameter in frozen.named_parameters():
        trained = not name.startswith("kl.")
        assert (parameter.grad is not None and bool(parameter.grad.any())) == trained, name


def test_a_trained_autoencoder_reconstructs_images():
    model = build(subspace_count=2)
    images = torch.rand(4, 1, 32, 32)
    output = model(images, torch.zeros(4, 10))
    assert output.target is images
    assert torch.equal(output.reconstruction.clamp(-1, 1), model.decode(output.mean))
    (output.reconstruction.square().sum() + output.log_variance.sum()).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("frozen_too", [False, True])
def test_learns(frozen, frozen_too):
    model = frozen if frozen_too else build()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    images = (torch.arange(32) < torch.randint(4, 28, (8, 1, 1, 1))).float().expand(8, 1, 32, 32)
    losses = []
    for _ in range(40):
        output = model(2 * images - 1, torch.zeros(8, 10))
        loss = mse_loss(output.reconstruction, output.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2


def test_the_weights_of_a_folder(folder, frozen):
    original = load_file(folder / WEIGHTS)
    assert frozen.kl.state_dict().keys() == original.keys()
    assert all(torch.equal(frozen.kl.state_dict()[name], original[name]) for name in original)


@pytest.mark.parametrize("train_autoencoder", [False, True])
def test_a_saved_model_needs_no_other_folder(folder, tmp_path, train_autoencoder):
    model = LatentVAE(autoencoder=str(folder), train_autoencoder=train_autoencoder, **OPTIONS)
    model.save_pretrained(tmp_path / "model")
    shutil.rmtree(folder)
    assert str(folder) not in (tmp_path / "model" / "config.json").read_text()
    loaded = load_model(tmp_path / "model")
    assert type(loaded) is LatentVAE
    assert loaded.state_dict().keys() == model.state_dict().keys()
    z, images = model.sample_latents(2), torch.rand(2, 1, 32, 32)
    assert torch.equal(loaded.decode(z), model.eval().decode(z))
    assert torch.equal(loaded.encode(images), model.encode(images))
    assert all(p.requires_grad == train_autoencoder for p in loaded.kl.parameters())
    loaded.save_pretrained(tmp_path / "again")
    configs = [
        json.loads((tmp_path / name / "config.json").read_text()) for name in ("model", "again")
    ]
    assert configs[0] == configs[1]


def test_the_arguments_that_are_left_out_are_those_of_the_small_one():
    kl = LatentVAE(**OPTIONS).kl.config
    assert list(kl.block_out_channels) == [32, 64, 64]
    assert (kl.in_channels, kl.out_channels, kl.sample_size, kl.scaling_factor) == (1, 1, 32, 1.0)
    assert build().kl.config.mid_block_add_attention is False


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS)
def test_constrained_bases(pre_svd_weight):
    model = build(subspace_count=2, whiten_codes=True, pre_svd_weight=pre_svd_weight)
    names = model.pre_svd_parameters()
    bases = ["decoder.subspaces.0.U", "decoder.subspaces.1.U"]
    assert names == [*bases, "encoder.posterior.mean.weight"]
    with torch.no_grad():
        for parameter in resolve_parameters(model, names).values():
            parameter.add_(0.5 * torch.randn_like(parameter))
    sigmas = torch.linalg.svdvals(model.decoder.subspaces[1].U.detach())
    orthogonal = pre_svd_weight.startswith("ortho")
    assert torch.allclose(sigmas, torch.ones(10), atol=1e-5) == orthogonal


@pytest.mark.parametrize("pre_svd_weight", WEIGHT_CONSTRAINTS[1:])
def test_a_constraint_is_never_put_on_fresh_memory(pre_svd_weight, monkeypatch):
    """`from_pretrained` turns `nn.init` off: what is in memory may be anything."""
    monkeypatch.setattr(nn.init, "kaiming_uniform_", lambda tensor, **_: tensor.data.zero_())
    model = build(whiten_codes=True, pre_svd_weight=pre_svd_weight)
    assert not model.encoder.hidden.weight.any()
    assert model.encoder.posterior.mean.weight.all()


def test_files_of_older_versions(folder):
    """Autoencoders in circulation have other names for the weights of attention."""
    # apart from the file, which is mapped into memory and then written anew
    before = {name: weight.clone() for name, weight in load_file(folder / WEIGHTS).items()}
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(weights):
        for new, name in old.items():
            weights = {key.replace(new, name): value for key, value in weights.items()}
        return weights

    change_weights(folder, rename)
    assert any("proj_attn" in name for name in load_file(folder / WEIGHTS))
    model = LatentVAE(autoencoder=str(folder), **OPTIONS)
    after = model.kl.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_half_precision_becomes_single(folder):
    change_weights(folder, lambda weights: {name: w.half() for name, w in weights.items()})
    model = LatentVAE(autoencoder=str(folder), **OPTIONS)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("name", ["config.json", WEIGHTS])
def test_a_missing_file(folder, name):
    (folder / name).unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"no KL autoencoder in .*vae: expected a .*{name}"
    ):
        LatentVAE(autoencoder=str(folder), **OPTIONS)


def test_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no KL autoencoder in .*nowhere.*config\.json"):
        LatentVAE(autoencoder=str(tmp_path / "nowhere"), **OPTIONS)


CONV = "decoder.conv_out.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {key: w[key] for key in w if key != CONV}, rf"missing keys such as {CONV}"),
        (lambda w: w | {"extra": torch.zeros(1)}, "unexpected keys such as extra"),
        (lambda w: w | {CONV: torch.zeros(2, 4, 3, 3)}, CONV),
    ],
)
def test_other_weights(folder, change, message):
    change_weights(folder, change)
    with pytest.raises(ValueError, match=f"does not hold a whole AutoencoderKL: .*{message}"):
        LatentVAE(autoencoder=str(folder), **OPTIONS)


def test_broken_files(folder):
    (folder / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="does not hold a whole AutoencoderKL"):
        LatentVAE(autoencoder=str(folder), **OPTIONS)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="does not hold a whole AutoencoderKL"):
        LatentVAE(autoencoder=str(folder), **OPTIONS)
    (folder / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(ValueError, match="names the class 'AutoencoderTiny'"):
        LatentVAE(autoencoder=str(folder), **OPTIONS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"autoencoder": {"channels": 4}},
            "AutoencoderKL has no argument 'channels'; there is in_",
        ),
        ({"autoencoder": TINY | {"norm_num_groups": 3}}, "does not take these arguments: .*divis"),
        ({"autoencoder": {"block_out_channels": 4}}, "does not take these arguments"),
        ({"autoencoder": TINY | {"in_channels": 3}}, "of 3 channels .* image_channels is 1"),
        ({"autoencoder": {"block_out_channels": [8] * 4}}, "at least 8 × 8, .* 32 pixels 3 times"),
        ({"autoencoder": None, "train_autoencoder": False}, "fresh weights must be trained"),
        ({"image_size": 48}, "image_size must be a power of two from 32, got 48"),
        ({"image_channels": 2}, "image_channels must be 1 or 3, got 2"),
        ({"network": "fc"}, "network must be one of conv, residual, got 'fc'"),
        ({"subspace_count": 4}, "subspace_count must be between 1 and 3, got 4"),
        ({"code_dim": 0}, "code_dim must be at least 1, got 0"),
    ],
)
def test_arguments_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        build(**changes)


def test_shapes_of_inputs_are_checked():
    model = build()
    with pytest.raises(ValueError, match=r"latents must have the shape \(N, 10\), got \(10,\)"):
        model.decode(torch.zeros(10))
    with pytest.raises(ValueError, match=r"\(N, 1, 32, 32\), got \(2, 3, 32, 32\)"):
        model.encode(torch.zeros(2, 3, 32, 32))


@pytest.fixture
def tiny_run(tiny_vae, folder):
    """Options of a run in the latents of a frozen autoencoder."""
    options = ["--model.name", "latent_vae", "--model.image_channels", "1"]
    frozen = ["--model.autoencoder", str(folder), "--model.train_autoencoder", "false"]
    return [*tiny_vae, *options, *frozen, "--objective.likelihood", "gaussian"]


def test_a_run_in_the_latents_of_a_frozen_autoencoder(tiny_run, folder):
    run, _ = parse_run([*tiny_run, "--training.ema_half_life", "16"])
    trainer = Trainer(run)
    learner = trainer.task.learner
    optimized = {p for group in learner.optimizer.param_groups for p in group["params"]}
    assert optimized.isdisjoint(learner.raw.kl.parameters())
    before = {name: p.detach().clone() for name, p in learner.raw.named_parameters()}
    trainer.train()
    for name, parameter in learner.raw.named_parameters():
        assert torch.equal(parameter, before[name]) == name.startswith("kl."), name
    original = load_file(folder / WEIGHTS)
    shutil.rmtree(folder)
    for name in ("model", "ema"):
        weights = load_model(run.output / name).kl.state_dict()
        assert all(torch.equal(weights[key], original[key]) for key in original)
    assert len(list((run.output / "samples").iterdir())) == 1
    for around in ("images", "prior"):
        assert traverse([str(run.output), "--device", "cpu", "--around", around]) == 0


def test_a_run_that_trains_its_autoencoder(tiny_run):
    fresh = ["--model.autoencoder", json.dumps(TINY), "--model.train_autoencoder", "true"]
    run, _ = parse_run([*tiny_run, *fresh, "--objective.likelihood", "laplace"])
    trainer = Trainer(run)
    raw = trainer.task.learner.raw
    before = {name: p.detach().clone() for name, p in raw.named_parameters()}
    trainer.train()
    assert all(not torch.equal(before[name], p) for name, p in raw.named_parameters())
    saved, images = load_model(run.output / "model"), torch.rand(2, 1, 32, 32)
    assert torch.allclose(saved.encode(images), raw.eval().encode(images), atol=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_loss_is_that_of_the_latents(tiny_run, likelihood):
    run, _ = parse_run([*tiny_run, "--objective.likelihood", likelihood])
    task = VAETask(run, Accelerator(cpu=True), run.build_data())
    images = torch.rand(8, 1, 32, 32) * 2 - 1
    part = Batch(images, step=1, samples=range(8), seed=0)
    _, terms = task._loss(part)
    noise = part.normal(Purpose.POSTERIOR, 10)
    output = task.learner.raw(images, noise)
    kind = torch.distributions.Normal if likelihood == "gaussian" else torch.distributions.Laplace
    density = kind(output.reconstruction, 1.0).log_prob(output.target)
    assert density.shape == (8, 2, 16, 16)
    expected = -density.sum() / 8
    assert terms["loss/reconstruction"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_resumed_run_ends_bit_for_bit_as_one_that_was_not_stopped(tiny_run, tmp_path):
    run, _ = parse_run(tiny_run)
    whole = Trainer(run)
    whole.train()
    (tmp_path / "run").rename(tmp_path / "whole")
    run, _ = parse_run([*tiny_run, "--training.steps", "3"])
    Trainer(run).train()
    run, options = parse_run([*tiny_run, "--resume"])
    resumed = Trainer(run, resume=options.resume)
    resumed.train()
    a, b = (trainer.task.learner.raw.state_dict() for trainer in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_bernoulli_is_refused(tiny_run):
    run, _ = parse_run([*tiny_run, "--objective.likelihood", "bernoulli"])
    with pytest.raises(ValueError, match=r"must be gaussian or laplace .* got bernoulli"):
        Trainer(run)
    assert not run.output.exists()


@pytest.mark.parametrize("train_autoencoder", [False, True])
def test_a_distributed_wrapper_sees_the_whole_loss(folder, tmp_path, train_autoencoder):
    """It refuses a second step if a parameter had no part in the first."""
    store = f"file://{tmp_path}/store"
    distributed.init_process_group("gloo", store, rank=0, world_size=1)
    try:
        options = OPTIONS | {"autoencoder": str(folder), "train_autoencoder": train_autoencoder}
        network = DistributedDataParallel(LatentVAE(**options))
        for _ in range(2):
            output = network(torch.rand(2, 1, 32, 32), torch.randn(2, 10))
            error = (output.reconstruction - output.target).square().sum()
            (error + output.mean.sum() + output.log_variance.sum()).backward()
    finally:
        distributed.destroy_process_group()
    assert network.module.decoder.subspaces[0].U.grad.any()
