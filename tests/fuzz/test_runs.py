"""Broken run folders: every command goes on without what is broken, or refuses it in one line."""

import json
import os
import pickle
import shutil
import sys

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from disentangle import (
    compare,
    evaluate,
    explore,
    plot_activeness,
    plot_conditioning,
    report,
    train,
)
from disentangle import traverse as traverse_command
from disentangle.evaluation.comparison import gather_spreads, list_notes
from disentangle.explorer.scores import list_maps, list_scores
from disentangle.runs.checkpoints import find_checkpoint, read_step
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.metrics_log import drop_lines_after, read_lines
from disentangle.runs.run import Run
from tests.helpers.damage import damaged, read_or_refuse, trap

OPTIONS = [
    *("--task", "vae", "--model.name", "subspace_vae", "--data.name", "sprites"),
    *("--data.orientations", "1", "--model.image_size", "32", "--model.base_channels", "4"),
    *("--model.hidden_dim", "16", "--model.code_dim", "3", "--orthogonality", "[nog, olr]"),
    *("--training.steps", "2", "--training.batch_size", "4", "--training.log_every", "1"),
    *("--training.sample_every", "1", "--training.ema_half_life", "10"),
]
MATRIX = [[0.1, 0.2], [0.3, 0.4], [0.5, None]]
REPORT = {
    "step": 2,
    "scores": {
        "mig": {
            "score": 0.5,
            "seed": 0,
            "protocol": {"points": 50, "runs": ["a"]},
            "seconds": 0.1,
            "versions": {"torch": "2"},
            "details": {"mutual_information": MATRIX, "caveat": "few"},
        },
        "dci (fitted encoder)": {
            "score": None,
            "protocol": {"points": 50},
            "details": {"completeness": 0.1, "informativeness": "Infinity", "importance": MATRIX},
        },
    },
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run that was trained for a moment, with scores."""
    folder = tmp_path_factory.mktemp("runs") / "sound"
    assert train.main([*OPTIONS, "--output", str(folder)]) == 0
    (folder / "scores.json").write_text(json.dumps(REPORT))
    return folder


@pytest.fixture
def run(sound, tmp_path):
    """A copy of it, made anew by `restore`."""
    return restore(sound, tmp_path / "run")


def restore(sound, folder):
    shutil.rmtree(folder, ignore_errors=True)
    return shutil.copytree(sound, folder)


FEW = ("--metrics", "mig", "--points", "40", "--test_points", "40")
COMMANDS = {
    "traverse": lambda r: traverse_command.main([r, "--steps", "2", "--animation", "none"]),
    "explore": lambda r: explore.main(
        [r, "--steps", "2", "--samples", "1", "--out", f"{r}.html", "--overwrite"]
    ),
    "report": lambda r: report.main([r, "--out", f"{r}.md", "--overwrite"]),
    "compare": lambda r: compare.main([r]),
    "evaluate": lambda r: evaluate.main([r, *FEW]),
    "plot-conditioning": lambda r: plot_conditioning.main([r, "--overwrite"]),
    "plot-activeness": lambda r: plot_activeness.main([r, "--overwrite"]),
    "train": lambda r: train.main([*OPTIONS, "--output", r, "--training.steps", "3", "--resume"]),
}


def finish(command, run, capsys):
    """The status of a command, which must be 0, or else another with one line that says why."""
    capsys.readouterr()
    try:
        status = COMMANDS[command](str(run))
    except SystemExit as exited:
        status = exited.code
    lines = capsys.readouterr().err.splitlines()
    if status:
        assert status == 2 or command in ("train", "evaluate")  # 1: it began and could not go on
        assert status == 1 or len(lines) == 1
    if status == 2 or (status == 1 and command == "train"):
        assert any(line.startswith(f"disentangle {command}: error: ") for line in lines)
    return status


def replace(file, make):
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink(missing_ok=True)
    make(file)


DAMAGES = {
    "gone": lambda file: None,
    "empty": lambda file: file.write_bytes(b""),
    "bytes": lambda file: file.write_bytes(bytes(range(256))),
    "a folder": lambda file: file.mkdir(),
    "a link to itself": lambda file: file.symlink_to(file),
    "a link to nothing": lambda file: file.symlink_to("nothing"),
    "null": lambda file: file.write_text("null"),
    "deep": lambda file: file.write_text("[" * 100_000),
    "other": lambda file: file.write_text('{"step": [], "scores": {"mig": []}, "sizes": 3}'),
    "a run of other kinds": lambda file: file.write_text(
        "{task: 1, model: [], data: 2, output: 3}"
    ),
    "half a run": lambda file: file.write_text("{task: vae, model: {}, data: {}, output: x}"),
}


@given(
    command=st.sampled_from(list(COMMANDS)),
    kind=st.sampled_from(list(DAMAGES)),
    data=st.data(),
)
def test_commands_on_broken_folders(sound, tmp_path, capsys, command, kind, data):
    run = restore(sound, tmp_path / "run")
    names = ["config.yaml", "metrics.jsonl", "scores.json", "ema", "checkpoints", "logs", "samples"]
    names += [str(path.relative_to(run)) for path in sorted(run.rglob("ema/*"))]
    names += [str(path.relative_to(run)) for path in sorted(run.rglob("checkpoints/**/*"))]
    replace(run / data.draw(st.sampled_from(names)), DAMAGES[kind])
    assert finish(command, run, capsys) in (0, 1, 2)


def manifest(checkpoint):
    """Makes the manifest of a checkpoint fit its files, as whoever changes them could."""
    files = [f for f in sorted(checkpoint.rglob("*")) if f.is_file() and f.name != "manifest.json"]
    sizes = {str(file.relative_to(checkpoint)): file.stat().st_size for file in files}
    (checkpoint / "manifest.json").write_text(json.dumps({"step": 2, "sizes": sizes}))


@given(data=st.data())
def test_damaged_checkpoints(sound, tmp_path, capsys, data):
    run = restore(sound, tmp_path / "run")
    files = [f for f in sorted((run / "checkpoints" / "step-2").iterdir()) if f.suffix != ".json"]
    file = data.draw(st.sampled_from(files))
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    manifest(file.parent)
    # 1: a weight or a moment may have become so large that the next loss is not finite.
    assert finish("train", run, capsys) in (0, 1, 2)


def test_pickles_in_a_checkpoint_are_not_obeyed(sound, tmp_path, capsys):
    names = [
        f.name for f in (sound / "checkpoints" / "step-2").iterdir() if f.suffix in (".bin", ".pkl")
    ]
    assert (
        "custom_checkpoint_0.pkl" in names
    )  # the average, which Accelerate would load without care
    with trap(tmp_path) as caught:
        for name in names:
            for save in (torch.save, lambda x, f: f.write_bytes(pickle.dumps(x))):
                run = restore(sound, tmp_path / "run")
                save(caught, run / "checkpoints" / "step-2" / name)
                manifest(run / "checkpoints" / "step-2")
                status = finish("train", run, capsys)
                # Accelerate goes on without the states of random generators, which is harmless.
                assert status == (0 if name.startswith("random_states") else 2)
                assert not caught.folder.exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


@pytest.mark.parametrize(
    "name", ["../../sound/checkpoints/step-2", "/", "step-2/..", "step-²", "step--2"]
)
def test_a_checkpoint_is_one_of_the_run(run, complaint, name):
    options = [*OPTIONS, "--output", str(run), "--training.steps", "3", "--resume", name]
    assert "--resume takes 'latest' or 'step-N'" in complaint(train.main, options)


def test_a_configuration_of_anyone_replaces_no_run(run, tmp_path, complaint):
    content = yaml.safe_load((run / "config.yaml").read_text())
    (tmp_path / "gift.yaml").write_text(yaml.safe_dump(content | {"overwrite": True}))
    before = (run / "metrics.jsonl").read_bytes()
    assert "must not hold overwrite" in complaint(
        train.main, ["--config", str(tmp_path / "gift.yaml")]
    )
    assert (run / "metrics.jsonl").read_bytes() == before


def test_a_complaint_cannot_move_the_cursor(complaint):
    printed = complaint(traverse_command.main, ["\x1b[2J\ud800größer"])
    assert r"no run folder \x1b[2J\ud800größer" in printed


def test_a_missing_package_is_said_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    (tmp_path / "data.mdb").write_bytes(b"")
    options = [*OPTIONS, "--output", str(tmp_path / "run")]
    lsun = ("--data.name", "lsun", "--data.path", str(tmp_path))
    start = options.index("--data.orientations")
    with pytest.raises(SystemExit) as exited:
        train.main([*options[:start], *options[start + 2 :], *lsun])
    assert exited.value.code == 2
    expected = "disentangle train: error: LSUN needs lmdb: pip install 'disentangle[data]'"
    assert capsys.readouterr().err.splitlines() == [expected]


@given(content=damaged((json.dumps({"step": 1, "loss": 0.5, "kl/0": None}) + "\n").encode() * 3))
def test_damaged_logs(tmp_path, content):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(content)
    for line in read_lines(file):
        assert line["step"] >= 0
        assert all(
            value is None or float(value) == value or value != value for value in line.values()
        )
    drop_lines_after(file, 1)
    assert all(line["step"] <= 1 for line in read_lines(file))


@pytest.mark.parametrize(
    "line",
    [
        '{"step": "1"}',
        '{"step": true}',
        '{"step": -1}',
        '{"step": 1, "loss": "x"}',
        '{"step": 1, "loss": [1]}',
        '{"loss": 1}',
        "[1]",
        f'{{"step": 1{"0" * 30}}}',
        "[" * 100_000,
        "1" * 5000,
        "\ud800",
    ],
    ids=lambda line: line[:20].encode("unicode_escape").decode(),
)
def test_lines_that_are_not_of_a_log(tmp_path, line):
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"step": 1}\n' + line.encode("utf-8", "surrogatepass") + b'\n{"step": 2}\n')
    assert read_lines(file) == [{"step": 1}, {"step": 2}]
    drop_lines_after(file, 1)
    assert file.read_text() == '{"step": 1}\n'


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["Infinity", "\ud800", "\x1b[2J", 10**400]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


def show_scores(folder):
    """What commands do with scores, as they do it."""
    run = Run(folder)
    run.raw_config = {}
    spreads = gather_spreads(group_by_experiment([run]))
    "\n".join(list_notes([run], {name.partition(", ")[0] for name in spreads})).encode()
    json.dumps(list_scores(run.scores))
    for heat_map in list_maps(run.scores, (), lambda: ("a", "b")):
        assert {len(row) for row in heat_map.values} == {len(heat_map.columns)}


@given(content=damaged(json.dumps(REPORT).encode()))
def test_damaged_scores(tmp_path, content):
    (tmp_path / "scores.json").write_bytes(content)
    read_or_refuse(lambda: show_scores(tmp_path))


def test_scores_without_a_matrix(tmp_path):
    report = json.loads(json.dumps(REPORT))
    del report["scores"]["mig"]["details"]["mutual_information"]
    (tmp_path / "scores.json").write_text(json.dumps(report))
    show_scores(tmp_path)
    (heat_map,) = list_maps(Run(tmp_path).scores, (), lambda: ())
    assert "DCI" in heat_map.title


@given(data=st.data())
def test_scores_of_any_kind(tmp_path, data):
    report = json.loads(json.dumps(REPORT))
    place, value = report, data.draw(VALUES)
    while True:
        key = data.draw(st.sampled_from([*place, "new"]))
        if not isinstance(place.get(key), dict) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    (tmp_path / "scores.json").write_text(json.dumps(report))
    read_or_refuse(lambda: show_scores(tmp_path))


@given(content=damaged(json.dumps({"step": 2, "sizes": {"a": 1}}).encode()))
def test_damaged_manifests(tmp_path, content):
    folder = tmp_path / "step-2"
    folder.mkdir(exist_ok=True)
    (folder / "a").write_bytes(b"x")
    (folder / "manifest.json").write_bytes(content)
    if read_or_refuse(lambda: find_checkpoint(tmp_path, "latest")):
        assert read_step(folder) >= 0


@pytest.mark.parametrize(
    "change",
    [
        {"task": 3},
        {"model": []},
        {"objective": None},
        {"optimizer": 3},
        {"training": "x"},
        {"orthogonality": 3},
        {"orthogonality": [[]]},
    ],
    ids=str,
)
@pytest.mark.parametrize("command", COMMANDS)
def test_configurations_whose_parts_are_of_other_kinds(run, capsys, command, change):
    content = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump(content | change))
    assert finish(command, run, capsys) == 2
