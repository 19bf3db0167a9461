import pytest
import torch
from torchvision.models import resnet18

from disentangle.models import ResNet, load_torchvision_weights


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    network = resnet18(num_classes=7)
    network(torch.randn(2, 3, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def file(published, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(published.state_dict(), path)
    return path


def make_model(**options):
    return ResNet(**{"image_size": 64, "stem": "large", "classes": 7} | options).eval()


def clone(model):
    return {name: x.clone() for name, x in model.state_dict().items()}


def test_the_network_is_the_published_one(published, file):
    model = make_model()
    load_torchvision_weights(model, file)
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model(images), published(images))


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"classes": 5}, ["fc"]),
        ({"stem": "small"}, ["conv1"]),
        ({"pre_svd_weight": "spectral"}, ["conv1"]),
        ({"pre_svd_weight": "orthogonal"}, ["conv1"]),
        ({"meta_layer": "decorrelated_batch_norm"}, ["bn1"]),
        ({"meta_layer": "covariance_pooling"}, ["pooling", "fc"]),
    ],
)
def test_all_but_what_is_left_out(published, file, options, left):
    model = make_model(**options)
    before = clone(model)
    with pytest.raises(ValueError, match="does not fit the network"):
        load_torchvision_weights(model, file, leave_out=left[1:])
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    load_torchvision_weights(model, file, leave_out=left)
    state = published.state_dict()
    for name, x in model.state_dict().items():
        kept = name.startswith(tuple(f"{module}." for module in left))
        assert torch.equal(x, before[name] if kept else state[name]), name


def test_what_does_not_fit_is_named(file):
    with pytest.raises(ValueError, match=r"fc\.weight must have the shape \(5, 512\), got \(7, "):
        load_torchvision_weights(make_model(classes=5), file)
    model = make_model(meta_layer="decorrelated_batch_norm")
    missing = r"it has no bn1\.running_whitening; it has bn1\.running_var, bn1\.num_batches"
    with pytest.raises(ValueError, match=missing):
        load_torchvision_weights(model, file)
    with pytest.raises(ValueError, match=r"it has no layer1\.2\.conv1\.weight, "):
        load_torchvision_weights(make_model(depth=34), file)


def test_bad_files(tmp_path):
    model = make_model()
    with pytest.raises(FileNotFoundError, match=r"no weights at .*none\.pth; nothing is downl"):
        load_torchvision_weights(model, tmp_path / "none.pth")
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"broken\.pth must be a file of PyTorch tensors"):
        load_torchvision_weights(model, broken)
    torch.save(torch.nn.Linear(2, 2), broken)
    with pytest.raises(ValueError, match=r"broken\.pth must be a file of PyTorch tensors"):
        load_torchvision_weights(model, broken)
    torch.save({"epoch": 3}, broken)
    with pytest.raises(ValueError, match="must hold a dictionary of tensors, got dict"):
        load_torchvision_weights(model, broken)


def test_bad_names(file):
    with pytest.raises(ValueError, match="must name modules of the network, got 'head'"):
        load_torchvision_weights(make_model(), file, leave_out=["head"])
    with pytest.raises(ValueError, match="must be a list of names, got the string 'fc'"):
        load_torchvision_weights(make_model(), file, leave_out="fc")
