"""A user's own generator in place of a run."""

import importlib
from functools import partial

import pytest
import torch
from PIL import Image

from disentangle import explore, train, traverse
from disentangle.adapters import load_generator_from
from disentangle.cli import view
from disentangle.traversal import invert

FILE = """
from dataclasses import dataclass
import torch
import {module}
from disentangle.adapters import adapt

SHADE = {module}.SHADE

@dataclass
class Painter:
    shade: "float"

    def draw(self, z):
        return (self.shade * SHADE * z[:, :1, None, None]).tanh().expand(-1, 1, 16, 16)

generator = adapt(Painter(1.0).draw, latent_dim=2)
with_encoder = adapt(
    Painter(1.0).draw, latent_dim=2, encode=lambda x: x.mean((2, 3)).expand(-1, 2)
)
module = adapt(torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.Tanh(),
                                   torch.nn.Unflatten(1, (1, 8, 8))), latent_dim=2)

class Plain:
    latent_dim, axes = 2, generator.axes
    sample_latents, decode = generator.sample_latents, generator.decode

plain = Plain()
number = 3
"""


@pytest.fixture
def source(tmp_path, monkeypatch):
    """`FILE.py`, in another folder than where commands run."""
    folder = tmp_path / "code"
    folder.mkdir()
    name = f"beside_{abs(hash(tmp_path))}"  # a module of its own for each test
    (folder / f"{name}.py").write_text("SHADE = 2.0")
    (folder / "mine.py").write_text(FILE.format(module=name))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return str(folder / "mine.py")


def list_here(tmp_path):
    return sorted(
        str(p.relative_to(tmp_path / "here")) for p in (tmp_path / "here").rglob("*") if p.is_file()
    )


def test_the_file_is_run(source):
    generator = load_generator_from(f"{source}:generator")
    images = generator.decode(torch.tensor([[0.25, 0.0]]))
    torch.testing.assert_close(images, torch.full((1, 1, 16, 16), 0.5).tanh())


@pytest.mark.parametrize("name", ["generator", "with_encoder", "module", "plain"])
def test_traverse(source, tmp_path, capsys, name):
    options = ["--generator", f"{source}:{name}", "--steps", "3", "--sort"]
    assert traverse.main(options) == 0
    files = ["traversals/traversal.png", "traversals/traversal.webp"]
    assert list_here(tmp_path) == files
    printed = capsys.readouterr()
    assert [line.split()[-1] for line in printed.out.splitlines()] == files
    dead = "left out, since they hardly change the image: " in printed.err
    assert dead == (name != "module")  # the others use one of their two latents
    with pytest.raises(SystemExit):
        traverse.main(options)
    assert "traversal.png exists: add --overwrite" in capsys.readouterr().err
    assert traverse.main([*options, "--overwrite"]) == 0
    assert traverse.main([*options, "--out", "other", "--animation", "none"]) == 0
    assert list_here(tmp_path) == ["other/traversal.png", *files]


def test_sefa_of_a_layer(source, tmp_path):
    options = ["--generator", f"{source}:module", "--steps", "3", "--animation", "none"]
    assert traverse.main([*options, "--sefa", "--sefa_layer", "network.0"]) == 0
    assert list_here(tmp_path) == ["traversals/sefa.png"]


@pytest.mark.parametrize("name", ["generator", "with_encoder"])
def test_around_an_image(source, tmp_path, monkeypatch, name):
    monkeypatch.setattr(view, "invert", partial(invert, steps=3))
    Image.new("RGB", (40, 30), "gray").save("a.png")
    options = ["--generator", f"{source}:{name}", "--steps", "3", "--animation", "none"]
    assert traverse.main([*options, "--image", "a.png"]) == 0
    assert "traversals/traversal.png" in list_here(tmp_path)


def test_explore_alone_and_beside_a_run(source, tiny_vae, tmp_path):
    options = ["--generator", f"{source}:generator", "--steps", "3", "--out", "page.html"]
    assert explore.main(options) == 0
    assert f"{source}:generator" in (tmp_path / "here" / "page.html").read_text()
    assert train.main([*tiny_vae, "--training.steps", "1"]) == 0
    assert explore.main([str(tmp_path / "run"), *options, "--overwrite"]) == 0


def test_a_run_s_pictures_can_go_elsewhere(tiny_vae, tmp_path, complaint):
    assert train.main([*tiny_vae, "--training.steps", "1"]) == 0
    run, out = str(tmp_path / "run"), tmp_path / "out"
    options = [run, "--steps", "2", "--animation", "none", "--axes", "0", "--out", str(out)]
    assert traverse.main(options) == 0
    assert [file.name for file in out.iterdir()] == ["traversal.png"]
    assert not (tmp_path / "run" / "traversals").exists()
    assert "traversal.png exists: add --overwrite" in complaint(traverse.main, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "expected a run folder, or --generator FILE.py:NAME"),
        (["--generator", "mine.py"], "must be given as FILE.py:NAME, got 'mine.py'"),
        (["--generator", "mine.py:a b"], "must be given as FILE.py:NAME, got 'mine.py:a b'"),
        (["--generator", "nowhere.py:G"], "there is no file nowhere.py"),
        (["--generator", "FILE:G"], "makes no 'G'; its generators are generator, with_encoder, "),
        (["--generator", "FILE:number"], "must be a generator, as disentangle.adapters.adapt"),
        (["--generator", "FILE:Plain"], "any module or function, got type"),
        (["--generator", "bad.py:G"], "bad.py fails with ZeroDivisionError: division by zero"),
        (["--generator", "worse.py:G"], "worse.py fails with SyntaxError"),
        (["--generator", "FILE:generator", "--around", "images"], "needs a model with an encoder"),
        (["--generator", "FILE:with_encoder", "--around", "images"], "needs the data set of a run"),
        (["--generator", "FILE:plain", "--device", "cpu"], "needs a generator that is a module"),
        (["--generator", "ends.py:G"], "ends.py ends the program: keep what it does as a program"),
        (["--generator", "FILE:generator", "--sefa"], "first_layer must name the layer"),
        (["--generator", "FILE:generator", "--sefa"], "(options --sefa_layer, --sefa_offset)"),
    ],
)
@pytest.mark.parametrize("command", [traverse, explore])
def test_bad_generators(source, tmp_path, complaint, command, options, message):
    (tmp_path / "here" / "bad.py").write_text("1 / 0")
    (tmp_path / "here" / "worse.py").write_text("def")
    (tmp_path / "here" / "ends.py").write_text("raise SystemExit(0)")
    printed = complaint(command.main, [word.replace("FILE", source) for word in options])
    assert message in printed
    assert list_here(tmp_path) == ["bad.py", "ends.py", "worse.py"]


@pytest.mark.parametrize("command", [traverse, explore])
def test_more_than_memory_should_hold_is_refused(source, monkeypatch, complaint, tmp_path, command):
    # the function of the same name hides the module
    module = importlib.import_module("disentangle.traversal.traverse")
    monkeypatch.setattr(module, "MOST_GIB", 1e-6)
    printed = complaint(
        command.main, ["--generator", f"{source}:generator", "--steps", "3", "--samples", "2"]
    )
    assert "images of shape (" in printed
    assert "at most 1e-06 GiB are allowed: choose fewer axes, samples or steps" in printed
    assert list_here(tmp_path) == []


def test_a_run_and_a_generator_are_two(source, tiny_vae, tmp_path, complaint):
    assert train.main([*tiny_vae, "--training.steps", "1"]) == 0
    run = str(tmp_path / "run")
    for main, runs, message in (
        (traverse.main, [run], "a run folder or --generator, got both"),
        (explore.main, [run, run], "at most 2 runs can be shown here, got 3"),
    ):
        assert message in complaint(main, [*runs, "--generator", f"{source}:generator"])
