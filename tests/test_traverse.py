import pytest
from PIL import Image

from disentangle import train, traverse
from disentangle.models import sefa_axes
from disentangle.training.run_folder import RunFolder


@pytest.fixture(params=["tiny_vae", "tiny_gan"])
def run(request, tmp_path):
    options = request.getfixturevalue(request.param)
    assert train.main([*options, "--training.steps", "2"]) == 0
    return tmp_path / "run"


def test_a_grid_and_an_animation(run, capsys):
    assert traverse.main([str(run), "--steps", "5"]) == 0
    printed = capsys.readouterr().out
    for name, frames in (("traversal.png", 1), ("traversal.webp", 8)):
        path = run / "traversals" / name
        assert str(path) in printed
        with Image.open(path) as picture:
            assert getattr(picture, "n_frames", 1) == frames


def test_where_to_start_from_can_be_chosen(run, capsys):
    assert traverse.main([str(run), "--steps", "3", "--around", "prior"]) == 0
    prior = (run / "traversals" / "traversal.png").read_bytes()
    if (run / "discriminator").exists():
        with pytest.raises(SystemExit):
            traverse.main([str(run), "--steps", "3", "--around", "images"])
        assert "--around images needs a model with an encoder" in capsys.readouterr().err
    else:
        traverse.main([str(run), "--steps", "3", "--around", "images"])
        images = (run / "traversals" / "traversal.png").read_bytes()
        traverse.main([str(run), "--steps", "3"])
        default = (run / "traversals" / "traversal.png").read_bytes()
        assert default == images != prior


def test_pictures_depend_on_the_seed_alone(run):
    pictures = []
    for seed in ("1", "1", "2"):
        traverse.main([str(run), "--steps", "3", "--seed", seed])
        pictures.append((run / "traversals" / "traversal.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]


@pytest.fixture
def drawn(monkeypatch):
    """The axes and labels of the pictures that are made."""
    seen = {}

    def spy(decode, latents, axes, **options):
        seen["axes"] = axes
        return real_traverse(decode, latents, axes, **options)

    def grid_spy(frames, rows, columns, **options):
        seen.update(options, rows=rows)
        return real_grid(frames, rows, columns, **options)

    real_traverse, real_grid = traverse.traverse, traverse.traversal_grid
    monkeypatch.setattr(traverse, "traverse", spy)
    monkeypatch.setattr(traverse, "traversal_grid", grid_spy)
    return seen


def test_along_the_directions_of_sefa(tiny_vae, tmp_path, drawn, capsys):
    assert train.main([*tiny_vae, "--training.steps", "2"]) == 0
    run = tmp_path / "run"
    model = RunFolder(run).load_generator()
    for named in ([], ["decoder.subspaces.0"]):
        assert traverse.main([str(run), "--steps", "3", "--sefa", *named]) == 0
        assert str(run / "traversals" / "sefa.png") in capsys.readouterr().out
        expected = sefa_axes(model)
        assert len(drawn["axes"]) == len(expected) == 10
        for axis, other in zip(drawn["axes"], expected, strict=True):
            assert (axis.direction == other.direction).all()
        assert drawn["rows"] == [axis.name for axis in expected]
        assert drawn["rows"][0].startswith("rank 1 (gain ")
        assert set(drawn["groups"]) == {"SeFa of decoder.subspaces.0"}
    files = sorted(path.name for path in (run / "traversals").iterdir())
    assert files == ["sefa.png", "sefa.webp"]
    traverse.main([str(run), "--steps", "3"])
    assert drawn["rows"] == [axis.name for axis in model.axes]
    assert (run / "traversals" / "traversal.png").exists()


def test_along_the_directions_of_the_noise(tiny_gan, tmp_path, drawn):
    assert train.main([*tiny_gan, "--training.steps", "2"]) == 0
    run = str(tmp_path / "run")
    noise = ["--sefa", "noise_projection", "--sefa_offset", "0"]
    assert traverse.main([run, "--steps", "3", *noise]) == 0
    assert len(drawn["rows"]) == 8
    assert traverse.main([run, "--steps", "3", *noise, "--sefa_count", "2"]) == 0
    assert len(drawn["rows"]) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sefa"], "EigenGAN takes in its latents at several layers"),
        (["--sefa", "noise"], "is named 'noise'; there is noise_projection"),
        (["--sefa", "noise_projection"], "offset must say which"),
        (["--sefa_count", "2"], "--sefa_count has a meaning with --sefa only"),
        (["--sefa_offset", "0"], "--sefa_offset has a meaning with --sefa only"),
        (
            ["--sefa", "noise_projection", "--sefa_offset", "0", "--sefa_count", "9"],
            "--sefa_count must be between 1 and 8, got 9",
        ),
    ],
)
def test_bad_choices_of_directions(tiny_gan, tmp_path, capsys, options, message):
    assert train.main([*tiny_gan, "--training.steps", "2"]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit) as exited:
        traverse.main([str(tmp_path / "run"), *options])
    assert exited.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "traversals").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "1"], "--steps must be at least 2, got 1"),
        (["--samples", "0"], "--samples must be at least 1, got 0"),
        (["--range", "-1"], "--range must be positive, got -1.0"),
        (["--range", "inf"], "range: expected float, got inf"),
        (["--step", "3"], "unrecognized arguments: --step 3; did you mean steps?"),
    ],
)
def test_bad_options(run, capsys, options, message):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exited:
        traverse.main([str(run), *options])
    assert exited.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (run / "traversals").exists()
