"""The published protocols in `configs/evaluate`, and files of options in general."""

import json
from pathlib import Path

import numpy as np
import pytest

from disentangle import compare, evaluate
from disentangle.cli.options import COMMAND_LINE_ONLY, build_parser, read_request
from disentangle.config.arguments import parse_arguments
from disentangle.evaluation.processes import Processes

FILES = sorted(Path("configs/evaluate").glob("*.yaml"))


def read(*arguments):
    options = parse_arguments(build_parser(), ["RUN", *arguments], COMMAND_LINE_ONLY)
    return read_request(options, Processes())


@pytest.fixture
def codes(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    factors = rng.integers(0, 3, (300, 2))
    file = tmp_path / "codes.npz"
    np.savez(file, codes=factors + 0.1 * rng.normal(size=(300, 2)), factors=factors)
    monkeypatch.chdir(tmp_path)
    return file


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_published_protocol_is_read(file):
    request = read("--config", str(file))
    assert request.config == [file.name]
    assert request.names


def test_the_protocols_say_what_was_published():
    assert len(FILES) == 5
    simple = read("--config", "configs/evaluate/vp_simple_gan.yaml")
    assert simple.sefa
    vp = simple.protocols["variation_predictability"]
    assert (vp["uniform_range"], vp["pairs"], vp["epochs"], vp["seeds"]) == (
        2,
        10_000,
        200,
        (0, 1, 2),
    )
    vp = read("--config", "configs/evaluate/vp_eigengan.yaml").protocols["variation_predictability"]
    assert (vp["uniform_range"], vp["truncation"]) == (4, 0.7)
    ppl = read("--config", "configs/evaluate/ppl_published.yaml")
    assert ppl.names == ["perceptual_path_length"]
    assert ppl.protocols["perceptual_path_length"]["epsilon"] == 1e-4


def test_later_options_override_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("metrics: mig\npoints: 100\nmig: {bins: 10}")
    request = read("--config", str(file), "--points", "50")
    assert (request.draws.points, request.protocols["mig"]) == (50, {"bins": 10})


def test_the_protocol_of_a_score_names_its_file(codes, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text("metrics: mig\nmig: {bins: 10}")
    options = ["--codes", str(codes), "--config", "mine.yaml"]
    assert evaluate.main([*options, "--output", "scores"]) == 0
    protocol = json.loads((tmp_path / "scores" / "scores.json").read_text())["scores"]["mig"]
    assert protocol["protocol"] == {"points": 300, "bins": 10, "config": "mine.yaml"}
    assert "config mine.yaml" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("output: elsewhere", "must not hold output, which goes on the command line: --output"),
        ("run: [a]", "must not hold run"),
        ("codes: a.npz", "must not hold codes"),
        ("config: a.yaml", "must not hold config"),
        ("mig: {bin: 10}", "did you mean"),
        ("points: 1:30", "points: expected a decimal number, got 1:30"),
        ("- mig", "must hold a mapping of options"),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(SystemExit) as exit_:
        evaluate.main(["RUN", "--config", str(file)])
    assert exit_.value.code == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("given", [["--config", "none.yaml"], ["--config"]])
def test_a_missing_file(given, capsys):
    with pytest.raises(SystemExit):
        evaluate.main(["RUN", *given])
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_options_that_an_older_version_lacked_are_at_their_defaults(tmp_path, capsys):
    for name, protocol in (("a", {}), ("b", {"bins": 20, "config": "dlib.yaml"})):
        folder = tmp_path / name
        folder.mkdir()
        config = "task: vae\nmodel: {name: subspace_vae}\ndata: {name: sprites}\noutput: a\n"
        (folder / "config.yaml").write_text(f"{config}seed: {len(protocol)}")
        score = {"score": 0.5, "protocol": {"points": 10, **protocol}, "details": {}}
        scores = {"step": 1, "scores": {"mig": score}}
        (folder / "scores.json").write_text(json.dumps(scores))
    assert compare.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "protocols differ" not in capsys.readouterr().out
