import os
from functools import partial

import pytest
import torch
from PIL import Image

from disentangle import train, traverse
from disentangle.cli import view
from disentangle.models import sefa_axes
from disentangle.runs.run import Run
from disentangle.traversal import draw, invert

NOISE = ("--sefa", "--sefa_layer", "noise_projection", "--sefa_offset", "0")


@pytest.fixture(params=["tiny_vae", "tiny_gan"])
def run(request, tmp_path):
    options = request.getfixturevalue(request.param)
    assert train.main([*options, "--training.steps", "2"]) == 0
    return tmp_path / "run"


def is_gan(run):
    return (run / "discriminator").exists()


def first_grid(run):
    """The content of the first picture."""
    return min((run / "traversals").glob("*.png")).read_bytes()


def test_a_grid_and_an_animation(run, capsys):
    assert traverse.main([str(run), "--steps", "5"]) == 0
    printed = capsys.readouterr().out
    files = sorted((run / "traversals").iterdir())
    for path in files:
        assert str(path) in printed
        with Image.open(path) as picture:
            assert getattr(picture, "n_frames", 1) == (8 if path.suffix == ".webp" else 1)
    sheets = [f"traversal-block-{i}" for i in range(3)] if is_gan(run) else ["traversal"]
    assert [path.name for path in files] == [f"{s}.{k}" for s in sheets for k in ("png", "webp")]


def test_where_to_start_from_can_be_chosen(run, complaint):
    assert traverse.main([str(run), "--steps", "3", "--around", "prior"]) == 0
    prior = first_grid(run)
    if is_gan(run):
        assert "--around images needs a model with an encoder" in complaint(
            traverse.main, [str(run), "--steps", "3", "--around", "images"]
        )
    else:
        traverse.main([str(run), "--steps", "3", "--around", "images"])
        images = first_grid(run)
        traverse.main([str(run), "--steps", "3"])
        default = first_grid(run)
        assert default == images != prior


def test_pictures_depend_on_the_seed_alone(run):
    pictures = []
    for seed in ("1", "1", "2"):
        traverse.main([str(run), "--steps", "3", "--seed", seed])
        pictures.append(first_grid(run))
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.fixture
def drawn(monkeypatch):
    """The axes and labels of the pictures that are made."""
    seen = {}

    def spy(decode, latents, axes, **options):
        seen["axes"] = axes
        seen["latents"] = latents
        return real_traverse(decode, latents, axes, **options)

    def grid_spy(frames, **options):
        seen.update(options, frames=frames)
        return real_grid(frames, **options)

    real_traverse, real_grid = draw.traverse, draw.traversal_grid
    monkeypatch.setattr(draw, "traverse", spy)
    monkeypatch.setattr(draw, "traversal_grid", grid_spy)
    return seen


def test_along_the_directions_of_sefa(tiny_vae, tmp_path, drawn, capsys):
    assert train.main([*tiny_vae, "--training.steps", "2"]) == 0
    run = tmp_path / "run"
    model = Run(run).generator
    for named in ([], ["--sefa_layer", "decoder.subspaces.0"]):
        assert traverse.main([str(run), "--steps", "3", "--sefa", *named]) == 0
        assert str(run / "traversals" / "sefa.png") in capsys.readouterr().out
        expected = sefa_axes(model)
        assert len(drawn["axes"]) == len(expected) == 10
        for axis, other in zip(drawn["axes"], expected, strict=True):
            assert (axis.direction == other.direction).all()
        assert drawn["row_labels"] == [axis.name for axis in expected]
        assert drawn["row_labels"][0].startswith("rank 1 (gain ")
        assert set(drawn["groups"]) == {"SeFa of decoder.subspaces.0"}
    assert traverse.main([str(run), "--steps", "3", "--sefa", "--sefa_normalise"]) == 0
    assert set(drawn["groups"]) == {"normalised SeFa of decoder.subspaces.0"}
    expected = sefa_axes(model, normalise=True)
    assert drawn["row_labels"] == [axis.name for axis in expected]
    files = sorted(path.name for path in (run / "traversals").iterdir())
    assert files == ["sefa.png", "sefa.webp"]
    assert traverse.main(["--steps", "3", "--sefa", str(run)]) == 0  # the run is not the layer
    traverse.main([str(run), "--steps", "3"])
    assert drawn["row_labels"] == [axis.name for axis in model.axes]
    assert (run / "traversals" / "traversal.png").exists()


def test_along_the_directions_of_the_noise(tiny_gan, tmp_path, drawn):
    assert train.main([*tiny_gan, "--training.steps", "2"]) == 0
    run = str(tmp_path / "run")
    assert traverse.main([run, "--steps", "3", *NOISE]) == 0
    assert len(drawn["row_labels"]) == 8
    assert traverse.main([run, "--steps", "3", *NOISE, "--sefa_count", "2"]) == 0
    assert len(drawn["row_labels"]) == 2


def test_axes_can_be_chosen_and_sorted(tiny_gan, tmp_path, drawn):
    assert train.main([*tiny_gan, "--training.steps", "2"]) == 0
    run = tmp_path / "run"
    options = ["--steps", "3", "--animation", "none"]
    assert traverse.main([str(run), *options, "--axes", "block 2,0,block 1/dimension 1,2"]) == 0
    names = sorted(path.name for path in (run / "traversals").iterdir())
    assert names == [f"traversal-block-{i}.png" for i in range(3)]
    assert drawn["row_labels"] == ["dimension 1"]  # the last sheet, in the order that was given
    assert traverse.main([str(run), *options, "--axes", "block 1", "--sort"]) == 0
    measured = [float(name.partition("(")[2][:-1]) for name in drawn["row_labels"]]
    assert len(measured) == 6
    assert measured == sorted(measured, reverse=True)
    assert drawn["title"].startswith("most active first")


def test_sorting_leaves_dead_codes_out_and_names_them(tiny_vae, tmp_path, drawn, capsys):
    assert train.main([*tiny_vae, "--training.steps", "2"]) == 0
    folder = tmp_path / "run" / "model"
    model = Run(tmp_path / "run").generator
    for layer in model.decoder.subspaces:
        layer.L.data[0] = 0
    model.save_pretrained(folder)
    options = [str(tmp_path / "run"), "--steps", "3", "--animation", "none", "--sort"]
    capsys.readouterr()
    assert traverse.main(options) == 0
    printed = capsys.readouterr().err
    assert len(drawn["row_labels"]) == len(model.axes) - 1
    dead = f"{model.axes[0].group}/{model.axes[0].name}"
    assert f"left out, since they hardly change the image: {dead}\n" in printed
    assert traverse.main([*options, "--axes", "0"]) == 0
    assert len(drawn["row_labels"]) == 1


def test_truncation_and_differences(tiny_gan, tmp_path, drawn):
    assert train.main([*tiny_gan, "--training.steps", "2"]) == 0
    run = tmp_path / "run"
    options = [str(run), "--steps", "3", "--animation", "none", "--axes", "0", "--samples", "2"]
    assert traverse.main(options) == 0
    whole = drawn["latents"]
    assert drawn["changes"] is None
    assert traverse.main([*options, "--truncation", "0.25", "--differences"]) == 0
    torch.testing.assert_close(drawn["latents"], whole / 4)
    assert drawn["changes"].shape == (1, 2, 3, 32, 32)


def test_around_a_given_image(run, tmp_path, drawn, monkeypatch):
    monkeypatch.setattr(view, "invert", partial(invert, steps=3))
    image = tmp_path / "a.png"
    Image.new("RGB", (50, 40), "white").save(image)
    options = ["--steps", "3", "--animation", "none", "--axes", "0", "--image", str(image)]
    assert traverse.main([str(run), *options]) == 0
    names = list(drawn["originals"])
    assert names[0] == "image"
    assert names[1].startswith("reconstruction (squared error ")
    white, made = drawn["originals"].values()
    assert (white == 1).all()
    model = Run(run).generator
    with torch.no_grad():
        torch.testing.assert_close(made, model.decode(drawn["latents"])[0])
        if not is_gan(run):
            torch.testing.assert_close(drawn["latents"], model.encode(white[None]))


def test_a_pipe_for_an_image_does_not_hang(run, tmp_path, complaint):
    os.mkfifo(tmp_path / "a.png")
    printed = complaint(traverse.main, [str(run), "--image", str(tmp_path / "a.png")])
    assert "a.png: not a regular file" in printed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # imageio-ffmpeg's
def test_gif_and_mp4(tiny_vae, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    assert train.main([*tiny_vae, "--training.steps", "2"]) == 0
    run = tmp_path / "run"
    for kind in ("gif", "mp4"):
        assert traverse.main([str(run), "--steps", "2", "--axes", "0", "--animation", kind]) == 0
        assert (run / "traversals" / f"traversal.{kind}").stat().st_size > 500


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sefa"], "EigenGAN takes in its latents at several layers"),
        (["--sefa", "--sefa_layer", "noise"], "is named 'noise'; there is noise_projection"),
        (["--sefa", "--sefa_layer", "noise_projection"], "offset must say which"),
        (["--sefa_layer", "a"], "--sefa_layer requires --sefa"),
        (["--sefa_count", "2"], "--sefa_count requires --sefa"),
        (["--sefa_normalise"], "--sefa_normalise requires --sefa"),
        (["--sefa_offset", "0"], "--sefa_offset requires --sefa"),
        (
            [*NOISE, "--sefa_count", "9"],
            "--sefa_count must be between 1 and 8, got 9",
        ),
    ],
)
def test_bad_choices_of_directions(tiny_gan, tmp_path, options, message, complaint):
    assert train.main([*tiny_gan, "--training.steps", "2"]) == 0
    assert message in complaint(traverse.main, [str(tmp_path / "run"), *options])
    assert not (tmp_path / "run" / "traversals").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "1"], "--steps must be between 2 and 1000, got 1"),
        (["--steps", "1000000000000"], "--steps must be between 2 and 1000, got 1000000000000"),
        (["--samples", "0"], "--samples must be between 1 and 1000, got 0"),
        (["--samples", "1001"], "--samples must be between 1 and 1000, got 1001"),
        (["--truncation", "1.5"], "--truncation must be between 0 and 1, got 1.5"),
        (["--axes", "nose"], "no axis 'nose': expected an index from 0 to"),
        (["--image", "nowhere.png"], "there is no image nowhere.png"),
        (["--image", "a.png", "--samples", "2"], "leave out --around and --samples"),
        (["--around", "images", "--truncation", "0.5"], "--truncation requires draws"),
        (["--animation", "apng"], "animation: "),
        (["--range", "-1"], "--range must be positive, got -1.0"),
        (["--range", "inf"], "range: expected float, got inf"),
        (["--step", "3"], "unrecognized arguments: --step 3; did you mean steps?"),
    ],
)
def test_bad_options(run, options, message, complaint):
    printed = complaint(traverse.main, [str(run), *options])
    assert message in printed
    assert not (run / "traversals").exists()
