import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from disentangle.models import EigenGAN, SubspaceVAE, load_model

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def saved(tmp_path):
    EigenGAN(image_size=32, base_channels=2, noise_dim=4).save_pretrained(tmp_path)
    return tmp_path


def change_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


@pytest.mark.parametrize("model", [EigenGAN(image_size=32), SubspaceVAE(image_size=32)])
def test_round_trip(model, tmp_path):
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    z = model.sample_latents(2)
    assert torch.equal(loaded.decode(z), model.decode(z))


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
