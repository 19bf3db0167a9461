"""The pictures and the page of any generator, without a run."""

import json
import re

import pytest
import torch
from PIL import Image
from torch import nn

from disentangle.adapters import adapt
from disentangle.explorer import write_explorer
from disentangle.explorer import writing as explorer_writing
from disentangle.models import EigenGAN, SubspaceVAE
from disentangle.traversal import draw, draw_traversals

THREE = {"values": [-2.0, 0.0, 2.0]}


class Plain:
    """No module, but all that the protocol asks for."""

    latent_dim = 2
    axes = adapt(lambda z: z[:, :, None, None].tanh()[:, :1], latent_dim=2).axes

    def sample_latents(self, n, generator=None):
        return torch.randn(n, 2, generator=generator)

    def decode(self, z):
        assert not torch.is_grad_enabled()
        return z[:, :1, None, None].tanh().expand(-1, -1, 8, 8)


def read_page(file):
    (content,) = re.findall(
        r'<script type="application/json" id="data">(.*?)</script>', file.read_text()
    )
    return json.loads(content)


def test_a_sheet_for_every_group(tmp_path):
    model = EigenGAN(image_size=32, base_channels=2, noise_dim=4, basis_dim=2)
    files = draw_traversals(model, tmp_path / "new" / "folder", **THREE)
    assert sorted(files) == sorted((tmp_path / "new" / "folder").iterdir())
    assert sorted(file.name for file in files) == [
        f"traversal-block-{i}.{ending}" for i in range(3) for ending in ("png", "webp")
    ]
    for file in files:
        with Image.open(file) as picture:
            assert getattr(picture, "n_frames", 1) == (4 if file.suffix == ".webp" else 1)
    assert model.training


def test_what_is_drawn_can_be_chosen(tmp_path, monkeypatch):
    seen = {}

    def spy(frames, **options):
        seen.update(options, frames=frames)
        return real(frames, **options)

    real = draw.traversal_grid
    monkeypatch.setattr(draw, "traversal_grid", spy)
    latents = torch.tensor([[0.5, 0.0], [-0.5, 0.0]])
    original = torch.zeros(1, 8, 8)
    (file,) = draw_traversals(
        Plain(),
        tmp_path,
        axes=Plain.axes[1:],
        latents=latents,
        differences=True,
        animation="none",
        originals={"mine": original},
        name="mine",
        title="words",
        **THREE,
    )
    assert file == tmp_path / "mine.png"
    assert seen["row_labels"] == ["dimension 1"]
    assert seen["column_labels"] == ["-2 std", "0", "+2 std"]
    assert seen["title"] == "words"
    assert seen["originals"] == {"mine": original}
    assert seen["changes"].shape == (1, 2, 3, 8, 8)
    expected = latents[:, :1].tanh().expand(-1, 3)
    torch.testing.assert_close(seen["frames"][0, :, :, 0, 0, 0], expected)


def test_pictures_depend_on_the_seed_alone(tmp_path):
    model = SubspaceVAE(image_size=32, base_channels=4, code_dim=2)
    few = {"animation": "none", **THREE}
    pictures = [
        draw_traversals(model, tmp_path / str(k), seed=seed, samples=2, **few)[0].read_bytes()
        for k, seed in enumerate((1, 1, 2))
    ]
    assert pictures[0] == pictures[1] != pictures[2]


def test_a_network_in_training_is_looked_at_in_evaluation(tmp_path):
    network = nn.Sequential(nn.Linear(2, 64), nn.BatchNorm1d(64), nn.Tanh())
    generator = adapt(lambda z: network(z).view(-1, 1, 8, 8), latent_dim=2, network=network)
    generator.train()
    before = network[1].running_mean.clone()
    draw_traversals(generator, tmp_path, animation="none", **THREE)
    write_explorer(generator, tmp_path / "page.html", **THREE)
    assert torch.equal(network[1].running_mean, before)
    assert network.training


def test_files_are_replaced_only_if_asked(tmp_path):
    (tmp_path / "traversal.webp").write_text("mine")
    page = tmp_path / "page.html"
    page.write_text("mine")
    with pytest.raises(FileExistsError, match=r"traversal\.webp exists: .*overwrite=True"):
        draw_traversals(Plain(), tmp_path, **THREE)
    with pytest.raises(FileExistsError, match=r"page\.html exists: .*overwrite=True"):
        write_explorer(Plain(), page, **THREE)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["page.html", "traversal.webp"]
    assert page.read_text() == (tmp_path / "traversal.webp").read_text() == "mine"
    with pytest.raises(ValueError, match="is not a writable folder"):
        draw_traversals(Plain(), page, overwrite=True, **THREE)
    draw_traversals(Plain(), tmp_path, overwrite=True, **THREE)
    write_explorer(Plain(), page, overwrite=True, **THREE)
    assert page.stat().st_size > 1000


def test_the_page_of_a_generator(tmp_path):
    file = write_explorer(
        Plain(),
        tmp_path / "page.html",
        axes=Plain.axes[:1],
        samples=2,
        originals={"mine": torch.zeros(1, 8, 8)},
        scores={"activeness": 0.25, "nothing": float("nan"), "all": float("inf")},
        **THREE,
    )
    data = read_page(file)
    (run,) = data["runs"]
    assert data["values"] == ["-2 std", "0", "+2 std"]
    assert data["middle"] == 1
    assert run["name"] == "page"
    assert [axis["name"] for axis in run["axes"]] == ["dimension 0"]
    assert len(run["strips"]) == len(run["starts"]) == 2
    assert run["originals"][0][0] == "mine"
    assert run["scores"] == [["activeness", 0.25], ["nothing", None], ["all", None]]
    named = write_explorer(Plain(), tmp_path / "b.html", name="<b>", **THREE)
    assert read_page(named)["runs"][0]["name"] == "<b>"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples must be at least 1, got 0"),
        ({"axes": ()}, "at least one axis"),
        ({"latents": torch.zeros(1, 3)}, r"directions must have the shape \(3,\)"),
        ({"values": []}, "a list of values"),
    ],
)
def test_bad_options(tmp_path, options, message):
    for write in (draw_traversals, write_explorer):
        with pytest.raises(ValueError, match=message):
            write(Plain(), tmp_path / "page.html", **options)
        assert not (tmp_path / "page.html").is_file()


def test_bad_files(tmp_path, monkeypatch):
    monkeypatch.setattr(explorer_writing, "picture_run", lambda *_, **__: pytest.fail("too late"))
    with pytest.raises(ValueError, match=r"must end in \.html, got .*page\.txt"):
        write_explorer(Plain(), tmp_path / "page.txt")
    with pytest.raises(ValueError, match="there is no folder"):
        write_explorer(Plain(), tmp_path / "nowhere" / "page.html")
    with pytest.raises(ValueError, match=r"must end in one of \.webp, \.gif, \.mp4"):
        draw_traversals(Plain(), tmp_path, animation="apng")
    assert not list(tmp_path.iterdir())
