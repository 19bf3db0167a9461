import hashlib
from types import SimpleNamespace

import lpips
import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional

from disentangle.metrics import feature_networks as module
from disentangle.metrics import fid_inception
from disentangle.metrics.feature_networks import (
    load_fid_inception,
    load_lpips,
    load_torchvision_features,
    random_features,
    squared_feature_distance,
)
from disentangle.metrics.features import (
    FeatureNetwork,
    FeatureOrigin,
    Features,
    as_features,
    as_rgb,
    describe,
    extract_features,
)
from disentangle.metrics.fid_inception import FID_INCEPTION_WEIGHTS, build_fid_inception
from disentangle.metrics.weight_files import PublishedWeights


@pytest.fixture(autouse=True)
def _no_network(monkeypatch, tmp_path):
    """Whatever tries to download fails, and the hub cache is empty."""

    def refuse(*args, **kwargs):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


@pytest.fixture
def images():
    return torch.rand(3, 3, 48, 48) * 2 - 1


def lively(network):
    """Random weights that keep the size of the signal, and statistics that are not trivial."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean, std=0.1)
            nn.init.uniform_(layer.running_var, 0.5, 2)
    return network.eval()


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(lively(build_fid_inception()).state_dict(), file)
    return file


def published_as(file, name):
    """The weights as if `file` were the published one of that name."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return PublishedWeights(f"https://example.org/{name}-{digest[:8]}.pth")


# --- random features ---


def test_random_features_reproduce_and_differ_by_seed(images):
    first, again, other = (random_features(seed)(images) for seed in (1, 1, 2))
    assert first.shape == (3, 64)
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_random_features_leave_the_random_state_alone():
    state = torch.get_rng_state()
    random_features()
    assert torch.equal(torch.get_rng_state(), state)


def test_random_features_are_alive(images):
    values = random_features()(images)
    assert (values.std(dim=0) > 0).float().mean() > 0.9
    assert 0.1 < values.mean() < 10


@pytest.mark.parametrize("size", [(16, 16), (16, 33), (100, 64)])
def test_grey_images_are_repeated_at_any_size(size):
    grey = torch.rand(2, 1, *size)
    network = random_features()
    assert torch.equal(network(grey), network(grey.repeat(1, 3, 1, 1)))


def test_random_networks_say_so():
    network = random_features(seed=7)
    assert not network.comparable
    assert describe(network) == FeatureOrigin(
        "random (seed 7)", "random features, not comparable with published values"
    )
    assert describe(squared_feature_distance(network)) == FeatureOrigin(
        "squared distance, random (seed 7)", "random features, not comparable with published values"
    )


def test_squared_distance_is_that_of_the_features(images):
    network = random_features()
    others = images.flip(0)
    expected = [
        (network(a[None]) - network(b[None])).square().sum()
        for a, b in zip(images, others, strict=True)
    ]
    result = squared_feature_distance(network)(images, others)
    torch.testing.assert_close(result, torch.stack(expected))


def test_squared_distance_of_a_published_network_is_not_a_published_distance(images):
    known = FeatureNetwork(random_features().network, name="known", caveat="")
    assert known.comparable
    assert not squared_feature_distance(known).comparable


def test_networks_are_fixed_and_take_every_precision(images):
    network = random_features()
    assert not any(p.requires_grad for p in network.parameters())
    assert not network(images.requires_grad_()).requires_grad
    torch.testing.assert_close(network(images.double()), network(images))
    assert network.double()(images).dtype == torch.float64


# --- extraction ---


def test_extraction_is_that_of_all_images_at_once(images):
    network = random_features(dim=5)
    found = extract_features(network, images.split(2))
    np.testing.assert_allclose(found.values, network(images), rtol=1e-5)
    assert found.origin == FeatureOrigin("random (seed 0)", network.caveat, (3, 48, 48))
    for keep in (1, 3, 4, 5):
        several = extract_features(network, images.repeat(2, 1, 1, 1).split(2), keep=keep)
        assert len(several.values) == keep


def test_extraction_takes_no_more_batches_than_it_needs(images):
    def batches():
        yield images
        raise AssertionError("one batch was enough")

    assert extract_features(random_features(), batches(), keep=3).values.shape == (3, 64)


def test_a_callable_without_a_name_is_enough(images):
    found = extract_features(lambda x: x.flatten(1), [images])
    assert found.values.shape == (3, 3 * 48 * 48)
    assert found.origin.caveat == "unnamed features, not comparable with published values"
    named = SimpleNamespace(name="mine", comparable=False)
    assert describe(named).caveat == "mine features, not comparable with published values"
    assert describe(SimpleNamespace(name="mine", comparable=True)) == FeatureOrigin("mine", "")


def test_bad_batches_are_refused(images):
    network = random_features()
    with pytest.raises(ValueError, match="at least 1 images, got 0"):
        extract_features(network, [])
    with pytest.raises(ValueError, match="at least 9 images, got 3"):
        extract_features(network, [images], keep=9)
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        extract_features(network, [images], keep=0)
    with pytest.raises(ValueError, match=r"got \(3, 48, 48\) and \(3, 32, 32\)"):
        extract_features(network, [images, images[..., :32, :32]])
    with pytest.raises(ValueError, match=r"shape \(3, D\), got \(3, 3, 48, 48\)"):
        extract_features(lambda x: x, [images])
    with pytest.raises(ValueError, match="features must be finite"):
        extract_features(lambda x: x.flatten(1).log(), [images])


def test_features_keep_their_precision():
    assert as_features(torch.zeros(2, 3)).dtype == np.float32
    assert as_features(torch.zeros(2, 3).bfloat16()).dtype == np.float32
    assert as_features(torch.zeros(2, 3).double()).dtype == np.float64
    assert as_features(np.zeros((2, 3), dtype=np.float16)).dtype == np.float64


def test_features_without_an_origin_are_unnamed():
    assert Features(np.zeros((2, 3))).origin == FeatureOrigin()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            torch.zeros(2, 2, 16, 16),
            r"1 or 3 channels, got torch.float32 of shape \(2, 2, 16, 16\)",
        ),
        (torch.zeros(3, 16, 16), r"got torch.float32 of shape \(3, 16, 16\)"),
        (torch.zeros(2, 3, 16, 16).byte(), "got torch.uint8"),
        (torch.zeros(2, 3, 15, 16), r"16 pixels or more in height and width .* got \(15, 16\)"),
    ],
)
def test_bad_images_are_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        as_rgb(bad)


# --- files of weights ---


def test_published_weights_are_known_by_their_contents(tmp_path):
    file = tmp_path / "copy.pth"
    file.write_bytes(b"weights")
    weights = published_as(file, "net")
    assert weights.file_name.startswith("net-")
    assert weights.is_copied_at(file)
    file.write_bytes(b"weighty")
    assert not weights.is_copied_at(file)
    assert not PublishedWeights("https://example.org/net.pth").is_copied_at(file)


def test_weights_are_looked_for_in_the_cache_a_folder_or_a_file(tmp_path):
    weights = PublishedWeights("https://example.org/net-0123abcd.pth")
    expected = r"expected the file net-0123abcd.pth, published at https://example.org"
    for path, place in [
        (None, tmp_path / "hub/checkpoints/net-0123abcd.pth"),
        (tmp_path, tmp_path / "net-0123abcd.pth"),
        (tmp_path / "my.pth", tmp_path / "my.pth"),
    ]:
        with pytest.raises(FileNotFoundError, match=f"no weights at {place}: {expected}"):
            weights.locate(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"")
        assert weights.locate(path) == place


LOADERS = {
    "fid": (load_fid_inception, FID_INCEPTION_WEIGHTS.file_name),
    "lpips": (load_lpips, "vgg16-397923af.pth"),
    "torchvision": (load_torchvision_features, r"resnet50-\w+.pth"),
}


@pytest.mark.parametrize("loader", LOADERS)
def test_a_missing_file_is_named_and_not_downloaded(loader):
    load, name = LOADERS[loader]
    with pytest.raises(
        FileNotFoundError, match=f"hub/checkpoints/{name}: expected the file {name}"
    ):
        load()


CONTENTS = {
    "text": b"not weights",
    "nothing": b"",
    "damaged": b"PK\x03\x04 damaged",
}


@pytest.mark.parametrize("contents", CONTENTS)
def test_a_file_that_is_no_weights_is_refused(tmp_path, contents):
    file = tmp_path / "bad.pth"
    file.write_bytes(CONTENTS[contents])
    with pytest.raises(ValueError, match=r"bad.pth must be a file of PyTorch tensors"):
        load_torchvision_features("resnet18", file)


@pytest.mark.parametrize("thing", [[1, 2], {"a": 1}, torch.zeros(3)])
def test_a_file_of_other_things_is_refused(tmp_path, thing):
    file = tmp_path / "bad.pth"
    torch.save(thing, file)
    with pytest.raises(ValueError, match=r"bad.pth must hold a dictionary of tensors, got"):
        load_torchvision_features("resnet18", file)


def test_a_file_that_could_run_code_is_refused(tmp_path):
    file = tmp_path / "bad.pth"
    torch.save(nn.Linear(1, 1), file)
    with pytest.raises(ValueError, match=r"bad.pth must be a file of PyTorch tensors"):
        load_torchvision_features("resnet18", file)


def test_weights_of_another_network_are_refused(tmp_path):
    file = tmp_path / "other.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    other = "other.pth holds the weights of another network"
    with pytest.raises(ValueError, match=other):
        load_torchvision_features("resnet18", file)
    with pytest.raises(ValueError, match=other):
        load_lpips("alex", file)
    with pytest.raises(ValueError, match=other):
        load_fid_inception(file)


# --- FID's Inception ---


def test_fid_inception_is_torchvisions_with_the_documented_pooling(monkeypatch, inception_file):
    reference = torchvision.models.Inception3(1008, aux_logits=False, init_weights=False).eval()
    reference.load_state_dict(torch.load(inception_file))
    calls = []

    def pool(x, kernel_size, stride, padding):
        calls.append(x.shape[1])
        if len(calls) == 9:  # the last block
            padded = functional.pad(x, (1, 1, 1, 1), value=-torch.inf)
            return padded.unfold(2, 3, 1).unfold(3, 3, 1).amax(dim=(4, 5))
        neighbours = functional.avg_pool2d(torch.ones_like(x[:1, :1]), 3, 1, 1)
        return functional.avg_pool2d(x, kernel_size, stride, padding) / neighbours

    x = torch.rand(1, 3, 139, 139) * 2 - 1  # 3 × 3 in the last block: pooling matters
    ours = build_fid_inception().eval()
    ours.load_state_dict(torch.load(inception_file))
    with torch.no_grad():
        found = ours(x)
        patched = SimpleNamespace(**{**vars(functional), "avg_pool2d": pool})
        monkeypatch.setattr(torchvision.models.inception, "F", patched)
        expected = reference(x)
    assert calls == [192, 256, 288, 768, 768, 768, 768, 1280, 2048]
    assert found.shape == (1, 1008)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def test_fid_inception_features_are_those_before_the_logits(inception_file):
    network = load_fid_inception(inception_file, size=80, eight_bit=False)
    x = torch.rand(2, 3, 80, 80) * 2 - 1
    whole = build_fid_inception().eval()
    whole.load_state_dict(torch.load(inception_file))
    features = network(x)
    assert features.shape == (2, 2048)
    torch.testing.assert_close(whole.fc(features), whole(x))
    assert network.name == "FID Inception (size 80, antialias False, eight_bit False)"
    assert "features of weights other than" in network.caveat


def test_fid_inception_is_comparable_with_the_published_file_only(monkeypatch, inception_file):
    published = published_as(inception_file, "inception")
    monkeypatch.setattr(fid_inception, "FID_INCEPTION_WEIGHTS", published)
    network = load_fid_inception(inception_file)
    assert (network.name, network.caveat) == ("FID Inception", "")
    assert network.comparable
    smooth = load_fid_inception(inception_file, antialias=True)
    assert smooth.name == "FID Inception (size 299, antialias True, eight_bit True)"
    assert smooth.caveat == "images not prepared as published, not comparable with published values"


def test_images_are_prepared_as_pytorch_fid_does(images):
    prepare = module._Preparation(size=299, antialias=False, eight_bit=True)
    stored = ((images + 1) * 127.5).round().byte()  # as an image file
    unit = functional.interpolate(
        stored.float() / 255, size=(299, 299), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(prepare(images), 2 * unit - 1, rtol=0, atol=1e-5)
    beyond = prepare(3 * images)
    assert beyond.min() >= -1 - 1e-6
    assert beyond.max() <= 1 + 1e-6


def test_antialiasing_is_a_choice():
    stripes = torch.tensor([-1.0, 1.0]).repeat(32).expand(1, 3, 64, 64)
    rough, smooth = (module._Preparation(size=21, antialias=a)(stripes) for a in (False, True))
    assert rough.abs().max() > 0.9
    assert smooth.abs().max() < 0.4


# --- torchvision's classifiers ---


@pytest.mark.parametrize("model", ["resnet18", "mobilenet_v3_small"])
def test_torchvision_features_enter_the_last_layer(tmp_path, images, model):
    weights = torchvision.models.get_model_weights(model).DEFAULT
    whole = lively(torchvision.models.get_model(model))
    torch.save(whole.state_dict(), tmp_path / weights.url.rsplit("/", 1)[-1])
    last = [layer for layer in whole.modules() if isinstance(layer, nn.Linear)][-1]
    seen = []
    last.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    recipe = weights.transforms()
    size = recipe.crop_size * 2
    larger = functional.interpolate(images, size, mode="bilinear", antialias=True)
    with torch.no_grad():
        whole(
            torchvision.transforms.functional.normalize((larger + 1) / 2, recipe.mean, recipe.std)
        )
    network = load_torchvision_features(model, tmp_path)
    torch.testing.assert_close(network(images), seen[0], rtol=1e-4, atol=1e-5)
    assert network.name == f"torchvision {model} {weights.name} at {size[0]} pixels"
    assert network.caveat.startswith(f"features of weights other than {model}-")


def test_inception_undoes_the_normalisation_of_imagenet():
    assert module._build_torchvision("googlenet").transform_input


@pytest.mark.parametrize(
    ("model", "version", "message"),
    [
        ("resnet7", "DEFAULT", "one of torchvision's classifiers, got 'resnet7'"),
        # its constructor would download the weights of its backbone
        ("fcos_resnet50_fpn", "DEFAULT", "one of torchvision's classifiers, got 'fcos"),
        ("resnet18", "V3", "one of IMAGENET1K_V1, DEFAULT for resnet18, got 'V3'"),
    ],
)
def test_unknown_classifiers_are_refused(model, version, message):
    with pytest.raises(ValueError, match=message):
        load_torchvision_features(model, version=version)


def test_a_classifier_without_a_linear_layer_is_refused(tmp_path):
    file = tmp_path / "squeezenet.pth"
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    with pytest.raises(ValueError, match="'squeezenet1_1' has none"):
        load_torchvision_features("squeezenet1_1", file)


# --- LPIPS ---


@pytest.fixture
def _no_initialisation(monkeypatch):
    """VGG's initialisation takes seconds, and the values are loaded anyway."""
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_"):
        monkeypatch.setattr(nn.init, name, lambda x, *args, **kwargs: x)


def save_trunk(name, file):
    """A file with random weights of torchvision's convolutions, and these."""
    layers = getattr(torchvision.models, name)().features
    for p in layers.parameters():
        p.data = torch.randn(p.shape) * p[0].numel() ** -0.5
    torch.save(layers.state_dict(prefix="features."), file)
    return layers


@pytest.mark.usefixtures("_no_initialisation")
@pytest.mark.parametrize(
    ("trunk", "name", "relus"),
    [
        ("alex", "alexnet", [1, 4, 7, 9, 11]),
        ("vgg", "vgg16", [3, 8, 15, 22, 29]),
        ("squeeze", "squeezenet1_1", [1, 4, 7, 9, 10, 11, 12]),
    ],
)
def test_lpips_is_the_published_formula(tmp_path, trunk, name, relus):
    file = tmp_path / "trunk.pth"
    layers = save_trunk(name, file)
    images, others = torch.rand(2, 2, 3, 32, 32) * 2 - 1
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    heads = torch.load(f"{lpips.__path__[0]}/weights/v0.1/{trunk}.pth", map_location="cpu")
    expected, a, b = 0, (images - shift) / scale, (others - shift) / scale
    with torch.no_grad():
        for number, layer in enumerate(layers[: relus[-1] + 1]):
            a, b = layer(a), layer(b)
            if number in relus:
                difference = functional.normalize(a, dim=1) - functional.normalize(b, dim=1)
                weight = heads[f"lin{relus.index(number)}.model.1.weight"]
                expected += (weight * difference.square()).sum(dim=1).mean(dim=(1, 2))
    distance = load_lpips(trunk, file)
    torch.testing.assert_close(distance(images, others), expected, rtol=1e-4, atol=1e-7)
    assert distance.name == f"LPIPS {trunk}"
    assert "weights other than" in distance.caveat


def test_lpips_takes_grey_and_resized_images(tmp_path):
    save_trunk("squeezenet1_1", tmp_path / "trunk.pth")
    plain = load_lpips("squeeze", tmp_path / "trunk.pth")
    resized = load_lpips("squeeze", tmp_path / "trunk.pth", size=40)
    images, others = torch.rand(2, 2, 1, 24, 24) * 2 - 1
    colour = [x.repeat(1, 3, 1, 1) for x in (images, others)]
    assert torch.equal(plain(images, others), plain(*colour))
    larger = [functional.interpolate(x, (40, 40), mode="bilinear", antialias=True) for x in colour]
    torch.testing.assert_close(resized(images, others), plain(*larger))
    small = images[..., :16, :16]
    assert resized(small, small).tolist() == [0, 0]
    assert (plain.name, resized.name) == ("LPIPS squeeze", "LPIPS squeeze at 40 pixels")
    with pytest.raises(ValueError, match=r"17 pixels or more .* got \(16, 16\): resize them"):
        plain(small, small)


@pytest.mark.usefixtures("_no_initialisation")
@pytest.mark.parametrize("trunk", ["alex", "squeeze"])
def test_lpips_minimum_sizes_are_the_networks(tmp_path, trunk):
    save_trunk(module.LPIPS_TRUNKS[trunk], tmp_path / "trunk.pth")
    distance = load_lpips(trunk, tmp_path / "trunk.pth")
    least = distance.minimum_size
    assert distance(*torch.rand(2, 1, 3, least, least)).isfinite().all()
    with pytest.raises(RuntimeError, match="too small"):
        distance.network(*torch.rand(2, 1, 3, least - 1, least - 1))


def test_lpips_is_comparable_with_the_published_file_only(tmp_path, monkeypatch):
    file = tmp_path / "trunk.pth"
    save_trunk("squeezenet1_1", file)
    entry = SimpleNamespace(url=published_as(file, "squeezenet1_1").url)
    monkeypatch.setattr(module, "_torchvision_weights", lambda model, version: entry)
    assert load_lpips("squeeze", file).comparable


def test_loading_leaves_the_random_state_alone(tmp_path, inception_file):
    save_trunk("squeezenet1_1", tmp_path / "trunk.pth")
    state = torch.get_rng_state()
    load_lpips("squeeze", tmp_path / "trunk.pth")
    load_fid_inception(inception_file)
    module._build_torchvision("resnet18")
    assert torch.equal(torch.get_rng_state(), state)


def test_unknown_trunks_are_refused():
    with pytest.raises(ValueError, match="trunk must be one of alex, vgg, squeeze, got 'resnet'"):
        load_lpips("resnet")
