import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from disentangle.models import EigenGAN, SubspaceVAE, load_model
from disentangle.orthogonality import WEIGHT_CONSTRAINTS, resolve_parameters

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path):
    EigenGAN(image_size=32, base_channels=2, noise_dim=4).save_pretrained(tmp_path)
    return tmp_path


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


MODELS = [
    pytest.param(cls(image_size=32, pre_svd_weight=weight), id=f"{cls.__name__}-{weight}")
    for cls in (EigenGAN, SubspaceVAE)
    for weight in WEIGHT_CONSTRAINTS
]


@pytest.mark.parametrize("model", MODELS)
def test_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    z = model.sample_latents(2)
    assert torch.equal(loaded.decode(z), model.eval().decode(z))
    assert loaded.config.pre_svd_weight == model.config.pre_svd_weight
    bases = resolve_parameters(loaded, loaded.pre_svd_parameters())
    for name, basis in resolve_parameters(model, model.pre_svd_parameters()).items():
        assert torch.equal(bases[name], basis)


def test_weights_of_an_older_format_are_converted_where_shapes_agree(tmp_path):
    """The config alone tells the two apart."""
    model = EigenGAN(image_size=32, base_channels=3, noise_dim=4)
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path).to_image.weight, model.to_image.weight)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("_weights_format") == 2
    (tmp_path / "config.json").write_text(json.dumps(config))
    turned = model.to_image.weight.transpose(0, 1).flip(2, 3)
    assert torch.equal(load_model(tmp_path).to_image.weight, turned)
    assert torch.equal(EigenGAN.from_pretrained(tmp_path).to_image.weight, turned)


@pytest.mark.parametrize("found", [3, "2", None, [2]])
def test_weights_of_an_unknown_format_are_refused(saved, found):
    change_config(saved, _weights_format=found)
    with pytest.raises(ValueError, match="_weights_format must be 1 or 2, got"):
        load_model(saved)


def test_a_model_without_the_argument_has_free_bases(saved):
    config = json.loads((saved / "config.json").read_text())
    del config["pre_svd_weight"]
    (saved / "config.json").write_text(json.dumps(config))
    assert load_model(saved).config.pre_svd_weight == "free"


def test_another_constraint_is_another_architecture(saved):
    change_config(saved, pre_svd_weight="orthogonal")
    with pytest.raises(ValueError, match=r"Missing key.* \"blocks.0.subspace.param"):
        load_model(saved)
    change_config(saved, pre_svd_weight="unitary")
    with pytest.raises(ValueError, match="got 'unitary'"):
        load_model(saved)


def test_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model in .*nowhere.*config\.json"):
        load_model(tmp_path / "nowhere")


def test_missing_weights_file(saved):
    (saved / WEIGHTS).unlink()
    with pytest.raises(FileNotFoundError, match=WEIGHTS):
        load_model(saved)


def test_foreign_class(saved):
    change_config(saved, _class_name="StyleGAN")
    with pytest.raises(ValueError, match="'StyleGAN', expected one of EigenGAN"):
        load_model(saved)


@pytest.mark.parametrize("change", [{"noise_dim": 5}, {"unknown": 1}])
def test_other_architecture(saved, change):
    change_config(saved, **change)
    with pytest.raises(ValueError, match="does not hold a whole EigenGAN"):
        load_model(saved)


def test_missing_and_left_over_weights(saved):
    weights = load_file(saved / WEIGHTS)
    save_file(weights | {"extra": torch.zeros(1)}, saved / WEIGHTS)
    with pytest.raises(ValueError, match="extra"):
        load_model(saved)
    del weights["to_image.bias"]
    save_file(weights, saved / WEIGHTS)
    with pytest.raises(ValueError, match=r"to_image\.bias"):
        load_model(saved)


def test_broken_files(saved):
    (saved / WEIGHTS).write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match="does not hold a whole"):
        load_model(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        load_model(saved)
