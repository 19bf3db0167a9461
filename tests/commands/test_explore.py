import base64
import json
import re
import sys
from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from disentangle import explore, train
from disentangle.adapters import adapt
from disentangle.explorer.page import PageRun, build_page
from disentangle.explorer.scores import list_maps, list_scores
from disentangle.explorer.server import draw_at, read_positions
from disentangle.explorer.strips import encode_images, encode_strips
from disentangle.explorer.writing import write_explorer
from disentangle.models import Axis
from disentangle.runs.scores_file import Score

HOSTILE = """</script><script>alert("a")</script><img src=x onerror=alert(1)>$data & 'b'"""
AXES = (
    Axis("x", "codes", torch.tensor([1.0, 0.0, 0.0])),
    Axis("y", "codes", torch.tensor([0.0, 0.6, 0.8]), std=2.0),
)


def paint_latents(z):
    """Images of 8 px and three channels, in the colour of the three latents."""
    return z[:, :, None, None].expand(-1, -1, 8, 8)


def decode_picture(source):
    kind, _, content = source.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(BytesIO(base64.b64decode(content))) as picture:
        return np.asarray(picture.convert("RGB"))


def read_data(page):
    (content,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(content)


def test_a_strip_holds_the_values_side_by_side():
    frames = torch.rand(3, 2, 4, 1, 6, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    strips = encode_strips(frames)
    assert (len(strips), len(strips[0])) == (2, 3)
    for a, s, v in np.ndindex(3, 2, 4):
        tile = decode_picture(strips[s][a])[:, 8 * v : 8 * v + 8]
        expected = ((frames[a, s, v, 0] + 1) * 127.5).round().numpy()
        np.testing.assert_array_equal(tile, expected[..., None].repeat(3, axis=2))


def test_colour_is_nearly_kept():
    image = decode_picture(
        encode_images(torch.tensor([0.5, -0.5, 0.0]).view(1, 3, 1, 1).expand(-1, -1, 16, 16))[0]
    )
    assert np.abs(image.astype(int) - [191, 64, 128]).max() <= 6


def test_bad_frames_are_refused():
    with pytest.raises(ValueError, match=r"\(A, S, V, C, H, W\), got \(1, 8, 8\)"):
        encode_strips(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="at most 16383 pixels along a side, got 2048 images of 8"):
        encode_strips(torch.zeros(1, 1, 1, 1, 8, 8).expand(1, 1, 2048, 1, 8, 8))


def make_run(name="a", samples=1):
    pixel = encode_images(torch.zeros(1, 1, 8, 8))[0]
    axes = [{"group": name, "name": name}]
    return PageRun(name, 8, 8, axes, [[pixel]] * samples, [pixel] * samples)


def test_strips_too_wide_are_refused_before_anything_is_moved(monkeypatch, tmp_path):
    monkeypatch.setattr("disentangle.explorer.writing.traverse", pytest.fail)
    generator = adapt(lambda z: z[:, :1, None, None].tanh().expand(-1, 1, 8, 32), latent_dim=2)
    with pytest.raises(ValueError, match="got 512 images of 32: choose fewer steps"):
        write_explorer(generator, tmp_path / "page.html", values=torch.linspace(-1, 1, 512))


def test_names_cannot_leave_their_place():
    page = build_page([make_run(HOSTILE)], [HOSTILE], 0)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    data = read_data(page)
    assert data["runs"][0]["name"] == data["values"][0] == HOSTILE


def test_the_policy_forbids_everything_but_the_page():
    page = build_page([make_run()], ["0"], 0)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name in ("style-src", "script-src"):
        assert re.fullmatch(r"'sha256-[\w+/]{43}='", rules[name])
    assert not re.search(r"(src|href)=|https?:", page)


def test_runs_must_have_the_same_samples():
    with pytest.raises(ValueError, match=r"all with the same number of samples, got \[1, 2\]"):
        build_page([make_run(), make_run(samples=2)], ["0"], 0)
    with pytest.raises(ValueError, match="at least one run"):
        build_page([], ["0"], 0)


def test_numbers_behind_the_page():
    matrix = [[0.5, None], [0.25, 0.0]]
    scores = {
        "mig": Score(score=0.5, protocol={}, details={"mutual_information": matrix}),
        "dci (fitted encoder)": Score(
            score=None,
            protocol={},
            details={"importance": matrix, "completeness": 0.1, "informativeness": 0.2},
        ),
    }
    assert list_scores(scores)[:2] == [("mig", 0.5), ("dci (fitted encoder)", None)]
    assert len(list_scores(scores)) == 4
    for axes, rows in ((AXES, ["x", "y"]), (AXES[:1], ["code 0", "code 1"])):
        first, second = list_maps(scores, axes, lambda: ("size", "shape"))
        assert first.rows == second.rows == rows
        assert first.values == matrix
        assert first.columns == ("size", "shape")
    assert second.title == "importance for predicting the factor (DCI) (fitted encoder)"
    assert list_maps(scores, AXES, lambda: ())[0].columns == ["factor 0", "factor 1"]
    assert not list_maps({}, AXES, lambda: pytest.fail("no matrix, no names"))


def test_infinite_numbers_are_undefined_on_the_page():
    details = {"mutual_information": [[0.5, float("inf")]]}
    scores = {"mig": Score(score=float("inf"), protocol={}, details=details)}
    assert list_scores(scores) == [("mig", None)]
    assert list_maps(scores, (), lambda: ())[0].values == [[0.5, None]]


def test_all_sliders_combine():
    z = torch.tensor([0.1, 0.2, 0.3])
    positions = [-0.5, 0.25]
    image = draw_at(paint_latents, z, AXES, positions)
    assert image.shape == (384, 384, 3)
    along = 0.5 * AXES[1].direction  # 0.25 of its deviation, 2
    across = z - (z @ AXES[1].direction) * AXES[1].direction
    colour = along + across * torch.tensor([0.0, 1.0, 1.0]) + torch.tensor([-0.5, 0.0, 0.0])
    expected = ((colour + 1) * 127.5).round().numpy()
    np.testing.assert_array_equal(image[0, 0], expected)


def test_positions_are_those_of_the_latent():
    z = torch.tensor([0.1, 0.2, 0.3])
    positions = read_positions(z, AXES)
    assert positions == pytest.approx([0.1, (0.6 * 0.2 + 0.8 * 0.3) / 2])
    start = draw_at(paint_latents, z, AXES, positions)
    np.testing.assert_array_equal(start[0, 0], ((z + 1) * 127.5).round().numpy())
    with pytest.raises(ValueError, match="2 positions are needed, got 1"):
        draw_at(paint_latents, z, AXES, [0.0])


@pytest.fixture
def run(tiny_vae, tmp_path):
    assert train.main([*tiny_vae, "--training.steps", "2"]) == 0
    return tmp_path / "run"


def test_a_page_of_one_run_and_of_two(run, tmp_path, capsys, complaint):
    out = tmp_path / "page.html"
    options = ["--out", str(out), "--steps", "3", "--samples", "2", "--axes", "0,3"]
    assert explore.main([str(run), *options]) == 0
    assert str(out) in capsys.readouterr().out
    data = read_data(out.read_text())
    (shown,) = data["runs"]
    assert data["values"] == ["-2 std", "0", "+2 std"]
    assert data["middle"] == 1
    assert [axis["name"] for axis in shown["axes"]] == ["code 0", "code 3"]
    assert decode_picture(shown["strips"][1][0]).shape == (32, 96, 3)
    assert "exists: add --overwrite" in complaint(explore.main, [str(run), *options])
    assert explore.main([str(run), str(run), *options, "--overwrite"]) == 0
    assert len(read_data(out.read_text())["runs"]) == 2


def test_the_data_set_may_be_away(run):
    gone = SimpleNamespace(build_data=lambda: Image.open(run / "nothing"))
    assert explore.name_factors(SimpleNamespace(config=gone)) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["RUN", "RUN", "RUN"], "at most 2 runs can be shown here, got 3"),
        (["RUN", "--out", "page.txt"], "the file must end in .html, got page.txt"),
        (["RUN", "--out", "nowhere/page.html"], "there is no folder nowhere"),
        (["RUN", "--port", "80"], "--port requires --serve"),
        (["RUN", "--serve", "--port", "65536"], "--port must be between 1 and 65535, got 65536"),
        (["RUN", "--serve", "--port", "0"], "--port must be between 1 and 65535, got 0"),
        (["RUN", "RUN", "--serve"], "at most 1 runs can be shown here, got 2"),
        (["RUN", "--serve"], "--serve needs gradio: pip install 'disentangle[ui]'"),
        (["RUN", "--steps", "1"], "--steps must be between 2 and 1000, got 1"),
        (["RUN/nothing"], "there is no run folder"),
    ],
)
def test_bad_options(run, tmp_path, monkeypatch, complaint, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "gradio", None)
    before = sorted(tmp_path.rglob("*"))
    assert message in complaint(explore.main, [word.replace("RUN", str(run)) for word in options])
    assert sorted(tmp_path.rglob("*")) == before
