import pytest
from PIL import Image

from disentangle import train, traverse


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
