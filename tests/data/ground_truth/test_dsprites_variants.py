import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from disentangle.data import ColorDSprites, DSprites, NoisyDSprites, RenderedSprites, ScreamDSprites

SIZES = (3, 2, 2, 3, 4)
COUNT = 144


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    classes = np.indices((1, *SIZES)).reshape(6, -1).T
    images = (RenderedSprites().render(classes[:, 1:])[:, 0] > 0).numpy().astype(np.uint8)
    path = tmp_path_factory.mktemp("dsprites") / "small.npz"
    np.savez_compressed(path, imgs=images, latents_classes=classes)
    return path


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A picture in which each pixel tells its place: red its row, green its column."""
    rows, columns = np.indices((100, 120))
    pixels = np.stack([rows, columns, np.full_like(rows, 200)], axis=2).astype(np.uint8)
    path = tmp_path_factory.mktemp("picture") / "picture.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def sprite(file):
    """Where the sprites are, `(N, H, W)`."""
    return DSprites(path=file).__getitems__(np.arange(COUNT))[:, 0].bool()


@pytest.fixture(params=["color", "noisy", "scream"])
def make(request, file, picture):
    """A function from a seed to a data set."""
    return {
        "color": lambda seed: ColorDSprites(path=file, seed=seed),
        "noisy": lambda seed: NoisyDSprites(path=file, seed=seed),
        "scream": lambda seed: ScreamDSprites(path=file, picture=picture, seed=seed),
    }[request.param]


def test_interface(make):
    data = make(0)
    assert data.factor_names == RenderedSprites().factor_names
    assert data.factor_sizes == SIZES
    assert (len(data), data.image_size, data.image_channels) == (COUNT, 64, 3)
    images = data.__getitems__([5, 7])
    assert images.shape == (2, 3, 64, 64)
    assert images.dtype == torch.uint8
    assert data.__getitems__([]).shape == (0, 3, 64, 64)


def test_an_image_depends_on_seed_and_index_only(make):
    data = make(3)
    images = data.__getitems__([0, 17, 17, 143])
    assert torch.equal(images[1], images[2])
    assert torch.equal(images, pickle.loads(pickle.dumps(data)).__getitems__([0, 17, 17, 143]))
    assert torch.equal(images[3], data[143])
    assert torch.equal(images[1:2], data.render(data.factors([17])))
    assert not torch.equal(images, make(4).__getitems__([0, 17, 17, 143]))


@pytest.mark.parametrize("seed", [-1, 2**63, 1.5, True])
def test_wrong_seed(make, seed):
    with pytest.raises(ValueError, match="seed must be"):
        make(seed)


def test_colours(file, sprite):
    images = ColorDSprites(path=file).__getitems__(np.arange(COUNT)).permute(0, 2, 3, 1)
    assert (images[~sprite] == 0).all()
    colours = torch.stack([image[on][0] for image, on in zip(images, sprite, strict=True)])
    for image, on, colour in zip(images, sprite, colours, strict=True):
        assert (image[on] == colour).all()
    assert 127 <= colours.min() < 135
    assert 248 < colours.max() <= 255
    # The mean of 432 uniform numbers in [127.5, 255]; its standard deviation is 1.8.
    assert abs(colours.double().mean() - 191.25) < 9
    assert len(colours.unique(dim=0)) == COUNT


def test_noise(file, sprite):
    images = NoisyDSprites(path=file).__getitems__(np.arange(COUNT)).permute(0, 2, 3, 1)
    assert (images[sprite] == 255).all()
    noise = images[~sprite].double()
    counts = torch.bincount(noise.flatten().long(), minlength=256)
    assert (counts > 0.9 * noise.numel() / 256).all()
    assert (counts < 1.1 * noise.numel() / 256).all()
    # Neither neighbours nor channels nor images go together.
    flat = NoisyDSprites(path=file).__getitems__([0, 1])[:, :, :12].flatten(1).double()
    for one, other in [(flat[0], flat[1]), (flat[0, 1:], flat[0, :-1])]:
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.1


def test_scream_inverts_the_sprite_on_a_mixed_crop(file, picture, sprite):
    images = ScreamDSprites(path=file, picture=picture).__getitems__(np.arange(COUNT)).long()
    places = set()
    for image, on in zip(images, sprite, strict=True):
        background = torch.where(on, 255 - image, image)
        # Half a crop, in which rows or columns rise by one each, and half a colour.
        rise = background[:2].double()
        down, right = rise[0, -1] - rise[0, 0], rise[1, :, -1] - rise[1, :, 0]
        assert (down - 31.5).abs().max() <= 1
        assert (right - 31.5).abs().max() <= 1
        assert (background[2] == background[2, 0, 0]).all()
        assert 100 <= background[2, 0, 0] <= 228
        places.add((int(background[0, 0, 0]), int(background[1, 0, 0])))
    assert len(places) > 100


def test_scream_shrinks_the_picture_to_the_published_size(file, tmp_path):
    Image.new("L", (700, 1096), 100).save(tmp_path / "large.png")
    data = ScreamDSprites(path=file, picture=tmp_path / "large.png")
    assert data._picture.shape == (274, 175, 3)
    assert data._picture.dtype == np.uint8


def test_scream_scales_a_picture_of_16_bits(file, tmp_path):
    values = np.full((100, 100), 200 * 257, dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "grey.png")
    data = ScreamDSprites(path=file, picture=tmp_path / "grey.png")
    assert (data._picture == 200).all()


def test_scream_refuses_wrong_pictures(file, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no picture at .*absent\.jpg"):
        ScreamDSprites(path=file, picture=tmp_path / "absent.jpg")
    Image.new("RGB", (64, 200)).save(tmp_path / "narrow.png")
    with pytest.raises(ValueError, match=r"must be larger than 64 × 64 pixels, got 64 × 200"):
        ScreamDSprites(path=file, picture=tmp_path / "narrow.png")
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"text\.jpg is not a picture: it must be one of BMP"):
        ScreamDSprites(path=file, picture=tmp_path / "text.jpg")
