"""Damaged and hostile models and files of weights: loaded or refused, nothing else."""

import io
import json
import pickle
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from disentangle.metrics.weight_files import load_state, read_state
from disentangle.models import EigenGAN, LatentVAE, ResNet, SubspaceVAE, load_model
from disentangle.models.kl_autoencoder import load_autoencoder
from disentangle.models.torchvision_weights import load_torchvision_weights
from tests.helpers.damage import damaged, read_or_refuse, trap

WEIGHTS = "diffusion_pytorch_model.safetensors"
MODELS = {
    "eigengan": lambda: EigenGAN(image_size=32, base_channels=2, noise_dim=2),
    "subspace_vae": lambda: SubspaceVAE(image_size=32, base_channels=2, hidden_dim=8, code_dim=2),
    "latent_vae": lambda: LatentVAE(
        image_size=32, image_channels=1, base_channels=2, hidden_dim=8, code_dim=2
    ),
    "resnet": lambda: ResNet(depth=18, image_size=32, classes=2),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
) | st.sampled_from([10**6, 2**31, 10**12, 2**64, 10**400, "free", "orthogonal", "conv", "/etc"])


@pytest.fixture(scope="module", params=MODELS)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    MODELS[request.param]().save_pretrained(folder)
    return folder


def with_file(file, content, read):
    """Whether something is read while a file holds something else."""
    sound = file.read_bytes()
    file.write_bytes(content)
    try:
        return read_or_refuse(read)
    finally:
        file.write_bytes(sound)


@given(data=st.data())
def test_damaged_models(folder, data):
    files = [file for file in sorted(folder.iterdir()) if file.stat().st_size < 2**22]  # be quick
    file = data.draw(st.sampled_from(files))
    with_file(file, data.draw(damaged(file.read_bytes())), lambda: load_model(folder))


@given(data=st.data())
def test_arguments_of_any_kind(folder, data):
    config = json.loads((folder / "config.json").read_text())
    names = st.sampled_from(sorted(config)) | st.text(max_size=5)
    config |= data.draw(st.dictionaries(names, VALUES, min_size=1, max_size=2))
    file = folder / "config.json"
    with_file(file, json.dumps(config).encode(), lambda: load_model(folder))


@pytest.mark.parametrize(
    "argument", [{"base_channels": 10**6}, {"code_dim": 2**31}, {"hidden_dim": 10**9}], ids=str
)
def test_arguments_that_ask_for_much_memory(tmp_path, argument):
    MODELS["subspace_vae"]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | argument
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not read_or_refuse(lambda: load_model(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"[" * 100_000, b'{"_class_name": ["EigenGAN"]}', b"\xff", b"9" * 5000],
    ids=lambda content: repr(content[:12]),
)
def test_configurations_that_are_none(tmp_path, content):
    MODELS["eigengan"]().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"config.json (is not JSON|names the class)"):
        load_model(tmp_path)


@pytest.mark.parametrize("length", [0, 8, 2**31, 2**63, 2**64 - 1])
def test_weights_whose_header_lies(tmp_path, length):
    MODELS["eigengan"]().save_pretrained(tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(struct.pack("<Q", length) + content[8:])
    assert not read_or_refuse(lambda: load_model(tmp_path))


def test_a_model_names_no_other_folder(tmp_path):
    """A `latent_vae` in the making takes a folder, but a saved one holds everything."""
    MODELS["latent_vae"]().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"autoencoder": str(tmp_path)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="its autoencoder must be given by its arguments"):
        load_model(tmp_path)


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    MODELS["latent_vae"]().kl.save_pretrained(folder)
    return folder


@given(data=st.data())
def test_damaged_autoencoders(autoencoder, data):
    file = autoencoder / data.draw(st.sampled_from(["config.json", WEIGHTS]))
    with_file(file, data.draw(damaged(file.read_bytes())), lambda: load_autoencoder(autoencoder))


def test_an_autoencoder_is_of_two_files(autoencoder, tmp_path):
    for file in autoencoder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    index = {"metadata": {}, "weight_map": {"a": "../other.safetensors"}}
    (tmp_path / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="its weights must be in one file and not quantised"):
        load_autoencoder(tmp_path)
    (tmp_path / f"{WEIGHTS}.index.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    quantised = config | {"quantization_config": {"quant_method": "bitsandbytes"}}
    (tmp_path / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(ValueError, match="its weights must be in one file and not quantised"):
        load_autoencoder(tmp_path)


NETWORK = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))


def torch_file(content, **options):
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def load_into_network(file):
    load_state(NETWORK, read_state(file), file)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@given(data=st.data())
def test_damaged_files_of_torch(tmp_path, zipped, data):
    sound = torch_file(NETWORK.state_dict(), _use_new_zipfile_serialization=zipped)
    (tmp_path / "a.pth").write_bytes(data.draw(damaged(sound)))
    read_or_refuse(lambda: load_into_network(tmp_path / "a.pth"))


SPARSE = {key: x.to_sparse() if x.ndim else x for key, x in NETWORK.state_dict().items()}
OTHERS = {
    "no dictionary": [torch.zeros(2)],
    "other keys": {0: torch.zeros(2)},
    "other values": {"0.weight": 3},
    "sparse tensors": SPARSE,
    "tensors without memory": {k: x.to("meta") for k, x in NETWORK.state_dict().items()},
    "a tensor of much": {"0.weight": torch.zeros(1).expand(10**6, 10**6)},
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
@pytest.mark.filterwarnings("ignore:Sparse")
def test_other_content_of_torch_files(tmp_path, content):
    (tmp_path / "a.pth").write_bytes(torch_file(content))
    network = ResNet(depth=18, image_size=32, classes=2)
    assert not read_or_refuse(lambda: load_into_network(tmp_path / "a.pth"))
    assert not read_or_refuse(lambda: load_torchvision_weights(network, tmp_path / "a.pth"))


def test_pickles_of_weights_are_not_obeyed(tmp_path):
    network, file = ResNet(depth=18, image_size=32, classes=2), tmp_path / "a.pth"
    with trap(tmp_path) as caught:
        contents = [torch_file(caught), torch_file({"0.weight": caught}), pickle.dumps(caught)]
        contents += [torch_file(caught, _use_new_zipfile_serialization=False)]
        for content in contents:
            file.write_bytes(content)
            assert not read_or_refuse(lambda: load_into_network(file))
            assert not read_or_refuse(lambda: load_torchvision_weights(network, file))
        MODELS["eigengan"]().save_pretrained(tmp_path / "model")
        for name in ("config.json", WEIGHTS):
            sound = (tmp_path / "model" / name).read_bytes()
            assert not with_file(
                tmp_path / "model" / name, contents[0], lambda: load_model(tmp_path / "model")
            )
            assert (tmp_path / "model" / name).read_bytes() == sound
    assert load_file(tmp_path / "model" / WEIGHTS)
