import base64
import json
import re
import shlex
import sys
from dataclasses import asdict
from datetime import datetime
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from disentangle import report
from disentangle.config import TrainingConfig, flatten
from disentangle.config.arguments import parse_arguments
from disentangle.models import EigenGAN, SimpleGAN
from disentangle.orthogonality.conditioning import MEASURES, measure_name
from disentangle.reporting.activeness import find_logged, find_scored
from disentangle.reporting.build import build_report
from disentangle.reporting.configuration import list_configuration
from disentangle.reporting.document import Picture, Points, Table, Tables, Text
from disentangle.reporting.generators import load_generators
from disentangle.reporting.markdown import build_markdown
from disentangle.reporting.page import build_page
from disentangle.reporting.runs import shorten_names
from disentangle.reporting.traversals import MOST, draw_traversals
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.metrics_log import activeness_name
from disentangle.runs.run import open_runs
from disentangle.runs.run_folder import RunFolder

HOSTILE = """</td></style><script>alert("a")</script><img src=x onerror=alert(1)> | `b` _c_ $d$"""
VOID = {"meta", "img", "wbr", "br"}
DATA = re.compile(r"data:image/(png|webp);base64,([\w+/=]+)")


def make_run(
    folder, *, scores=None, lines=(), seed=0, techniques=(), task="vae", step=20, **config
):
    """A run folder; scores by metric with what is in their entry, or with the score alone."""
    folder.mkdir(parents=True)
    run = {"task": task, "model": {"name": "m"}, "data": {"name": "sprites"}, "seed": seed}
    run |= {"output": str(folder), "orthogonality": list(techniques), "training": {"steps": 20}}
    (folder / "config.yaml").write_text(yaml.safe_dump(run | config))
    if scores is not None:
        usual = {"protocol": {"points": 20}, "details": {}, "seed": 3, "versions": {"torch": "9"}}
        entries = {
            name: usual | (entry if isinstance(entry, dict) else {"score": entry})
            for name, entry in scores.items()
        }
        (folder / "scores.json").write_text(json.dumps({"step": step, "scores": entries}))
    if lines:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def make_lines(scale=1.0, *, layer="U", quantity="weight", singular=False):
    conditions = {
        measure_name(layer, quantity, measure): None if singular and measure == "condition" else 4.0
        for measure in MEASURES
    }
    return [
        {"step": step, "loss": scale * step, "loss/part": 1.0, **conditions} for step in (10, 20)
    ]


def add_model(folder, model):
    RunFolder(folder).export("model", model, 20)


@pytest.fixture
def experiments(tmp_path):
    """Two seeds of one experiment, one of another, which was not evaluated."""
    return [
        make_run(tmp_path / "a", scores={"mig": 0.1}, lines=make_lines(), techniques=["nog"]),
        make_run(
            tmp_path / "b", scores={"mig": 0.4}, lines=make_lines(), techniques=["nog"], seed=1
        ),
        make_run(tmp_path / "c", lines=make_lines(2.0)),
    ]


@pytest.fixture
def undrawn(monkeypatch):
    """Figures that take no time."""
    buffer = BytesIO()
    Image.new("L", (1, 1)).save(buffer, "png")
    monkeypatch.setattr("disentangle.output.figures.encode_figure", lambda *_: buffer.getvalue())


def open_named(*folders):
    runs = open_runs(folders)
    shorten_names(runs)
    return runs


def build(*folders, **options):
    runs = open_named(*folders)
    time = datetime.fromisoformat("2026-01-02T03:04:00+00:00")
    return build_report(runs, device=torch.device("cpu"), time=time, **options)


def section(document, title):
    (found,) = (section for section in document.sections if section.title == title)
    return found.blocks


def of_kind(blocks, kind):
    return [block for block in blocks if isinstance(block, kind)]


def remarks(blocks):
    return [text for block in of_kind(blocks, Points) for text in block.texts]


def groups_of(*folders):
    return {folder.name: open_runs([folder]) for folder in folders}


def generator_of(folder):
    (shown,) = load_generators(groups_of(folder), torch.device("cpu"))
    return shown


class Page(HTMLParser):
    """Checks that elements are closed in order, and keeps what they refer to."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, name):
        return [value for key, value in self.attributes if key == name]


# Whole reports


def test_a_page_needs_nothing_else(experiments, tmp_path, capsys):
    file = tmp_path / "report.html"
    assert report.main([*map(str, experiments), "--out", str(file)]) == 0
    size = f"{file.stat().st_size / 1000:,.0f} kB"
    assert capsys.readouterr().out == f"report: {file} ({size})\n"
    page = Page(file.read_text())
    assert "script" not in page.tags
    pictures = page.values("src")
    assert len(pictures) == 2  # losses, conditioning
    for source in pictures:
        with Image.open(BytesIO(base64.b64decode(DATA.fullmatch(source)[2]))) as picture:
            assert min(picture.size) > 300
    assert all(page.values("alt"))
    assert sorted(page.values("href")) == sorted(f"#{name}" for name in page.values("id"))
    (policy,) = (value for value in page.values("content") if "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not re.search(r"https?:|url\(|@import", re.sub(DATA, "", file.read_text()))


def test_markdown_has_its_pictures_beside_it(experiments, tmp_path):
    file = tmp_path / "my report.md"
    assert report.main([*map(str, experiments), "--out", str(file)]) == 0
    links = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", file.read_text())
    names = [link.removeprefix("my%20report_files/") for link in links]
    assert len(names) == 2
    folder = tmp_path / "my report_files"
    assert sorted(names) == sorted(path.name for path in folder.iterdir())
    for name in names:
        with Image.open(folder / name) as picture:
            picture.verify()


def test_hostile_names_are_shown_as_they_are(tmp_path):
    lines = make_lines(layer=HOSTILE)
    lines[0] |= {activeness_name(HOSTILE): 0.5, f"loss/{HOSTILE}": 1.0}
    scores = {
        HOSTILE: {"score": 0.5, "protocol": {HOSTILE: HOSTILE}, "details": {"caveat": HOSTILE}}
    }
    folder = make_run(
        tmp_path / "<b>", scores=scores, lines=lines, objective={HOSTILE: HOSTILE, "x": [HOSTILE]}
    )
    document = build(folder, title=HOSTILE)
    page = Page(build_page(document))
    assert not {"script", "b"} & set(page.tags)
    assert page.tags.count("img") == len(page.values("alt")) == len(page.values("src"))
    assert not page.values("onerror")
    assert page.texts.count(HOSTILE) >= 2  # title and heading
    text = build_markdown(document, "files")
    assert not re.search(r"(?<!\\)[<>`$]", text)
    # Rows of a table have as many bars as its header, and no name begins a line of its own.
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.M):
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1


@pytest.mark.usefixtures("undrawn")
def test_what_others_wrote_is_of_one_line_and_obeyed_by_no_terminal(tmp_path):
    hostile = "a\x1b[31mred\nline2\x1b]0;pwn\a"
    lines = make_lines(layer=hostile)
    lines[0] |= {activeness_name(hostile): 0.5, f"loss/{hostile}": 1.0}
    details = {"caveat": hostile}
    scores = {"mig": {"score": 0.5, "protocol": {"bins": hostile}, "details": details}}
    folders = [
        make_run(tmp_path / name, scores=scores, lines=lines, **config)
        for name, config in (
            (hostile, {"model": {"name": [hostile]}}),
            ("b", {"model": {"name": hostile}, "objective": {hostile: hostile}}),
        )
    ]
    document = build(*folders, title=hostile)
    for text in (build_page(document), build_markdown(document, "files")):
        assert text.replace("\n", "").isprintable()
        assert r"a\x1b[31mred" in text.replace("\\[", "[").replace("\\\\", "\\")
        assert not [line for line in text.splitlines() if line.startswith("line2")]


@pytest.mark.usefixtures("undrawn")
def test_the_title_says_how_much_there_is(experiments):
    document = build(*experiments)
    assert document.title == "3 runs of 2 experiments"
    assert document.subtitle.startswith("2026-01-02 03:04 UTC, disentangle ")
    assert build(experiments[0], title="mine").title == "mine"


# What is in them


@pytest.mark.usefixtures("undrawn")
def test_runs_and_scores_over_seeds(experiments):
    document = build(*experiments)
    (runs,) = section(document, "Runs")
    assert [row[0] for row in runs.rows] == ["a", "b", "c"]
    assert runs.rows[1] == [
        "b", "NOG", "vae", "m", "1", "20 of 20", "1, of step 20"
    ]  # fmt: skip
    assert runs.rows[2][-1] == "not evaluated"
    blocks = section(document, "Scores")
    scores, protocols = of_kind(blocks, Table)
    assert scores.header == ["metric", "NOG (2 runs)", "no technique"]
    assert scores.rows == [["mig", "0.2500 ± 0.2121", None]]
    assert protocols.rows == [["mig", "points 20", "3"]]
    assert remarks(blocks) == ["c has not been evaluated"]
    assert "Computed with torch 9." in [block.text for block in of_kind(blocks, Text)]


def test_configuration_is_what_is_shared_and_what_differs(tmp_path):
    first = make_run(tmp_path / "a", seed=0, objective={"beta": 1.0, "kind": "beta"})
    again = make_run(tmp_path / "b", seed=1, objective={"beta": 1.0, "kind": "beta"})
    other = make_run(tmp_path / "c", seed=0, objective={"beta": 4.0}, task="gan")
    runs = {"x": open_named(first, again)} | groups_of(other)
    differing, shared = list_configuration(runs).blocks
    assert differing.header == ["option", "x", "c"]
    assert sorted(differing.rows) == [
        ["objective.beta", "1", "4"],
        ["objective.kind", "beta", ""],
        ["task", "vae", "gan"],
    ]
    assert {(table.header[0], *row) for table in shared.tables for row in table.rows} == {
        ("model", "name", "m"),
        ("data", "name", "sprites"),
        ("data", "orientations", "40"),  # defaults, which the saved run lacks
        ("run", "nog_scale", "unit"),
        ("run", "orthogonal_loss_weight", "100"),
        ("run", "pre_svd_parameters", "null"),
        *(("training", *option) for option in flatten(asdict(TrainingConfig(steps=20))).items()),
        ("run", "orthogonality", "[]"),
    }
    (alone,) = list_configuration(groups_of(first)).blocks
    assert isinstance(alone, Tables)
    assert ["seed", "0"] in [row for table in alone.tables for row in table.rows]


@pytest.mark.usefixtures("undrawn")
def test_a_gradient_that_is_always_singular_is_shown_without_its_null_space(tmp_path):
    lines = make_lines(quantity="gradient", singular=True)
    folder = make_run(tmp_path / "a", lines=lines)
    blocks = section(build(folder), "Conditioning")
    (picture,) = of_kind(blocks, Picture)
    assert "without the null space" in picture.caption
    (tables,) = of_kind(blocks, Tables)
    assert tables.tables[0].rows == [["U", "4"]]


@pytest.mark.usefixtures("undrawn")
def test_labels_are_the_same_in_every_section(tmp_path):
    covariance = make_lines(quantity="covariance")
    first = make_run(tmp_path / "a", lines=covariance, objective={"beta": 1})
    other = make_run(tmp_path / "b", lines=[{"step": 1, "loss": 1.0}], objective={"beta": 2})
    document = build(first, other)
    (tables,) = of_kind(section(document, "Conditioning"), Tables)
    assert tables.tables[0].header == ["layer", "no technique, objective.beta 1"]
    assert remarks(section(document, "Conditioning")) == ["b has no records of conditioning"]


def test_names_are_without_the_folders_that_all_runs_are_in(tmp_path):
    folders = [tmp_path / name for name in ("x/a", "x/b/c", "y")]
    for beta, folder in enumerate(folders):
        make_run(folder, objective={"beta": beta, "kind": "beta", f"other {beta}": 1})
    runs = open_named(*folders)
    assert [run.name for run in runs] == ["x/a", "x/b/c", "y"]
    assert list(group_by_experiment(runs)) == [f"no technique: {run.name}" for run in runs]
    runs = open_named(*folders[:2])
    assert [run.name for run in runs] == ["a", "b/c"]
    assert list(group_by_experiment(runs)) == ["no technique: a", "no technique: b/c"]
    (run,) = open_named(folders[0])
    assert run.name == str(folders[0])


def test_a_value_is_not_taken_for_a_folder(tmp_path, monkeypatch):
    """A run that was given as `a` has another name in a report than its folder."""
    monkeypatch.chdir(make_run(tmp_path / "x").parent)
    for path, name in (("a", "data"), ("../y", "other")):
        make_run(Path(path), model={"name": name})
    groups = group_by_experiment(open_named("a", "../y"))
    assert list(groups) == ["no technique, model.name data", "no technique, model.name other"]


@pytest.mark.usefixtures("undrawn")
def test_no_run_is_left_out(tmp_path):
    folders = [
        make_run(tmp_path / "a", lines=make_lines(), discriminator={}),
        make_run(tmp_path / "b", lines=make_lines(), objective={"beta": 1}),
        make_run(tmp_path / "c", lines=make_lines(), objective={"beta": 1}, seed=1),
        make_run(tmp_path / "d", lines=make_lines(), objective={"beta": "1 (mean, range of 2)"}),
        make_run(tmp_path / "e", lines=make_lines()),
    ]
    document = build(*folders)
    (runs,) = section(document, "Runs")
    assert sorted(row[0] for row in runs.rows) == list("abcde")
    (tables,) = of_kind(section(document, "Conditioning"), Tables)
    assert tables.tables[0].header == [
        "layer",
        "no technique, objective.beta - (mean, range of 2)",
        "no technique, objective.beta 1 (mean, range of 2)",
        'no technique, objective.beta "1 (mean, range of 2)"',
    ]


@pytest.mark.usefixtures("undrawn")
def test_classifiers_have_accuracies_and_no_axes(tmp_path):
    lines = [{"step": 10, "loss": 1.0, "train/top_1": 0.5, "validation/top_1": 0.4}]
    folder = make_run(tmp_path / "a", task="classification", lines=lines)
    document = build(folder)
    assert [part.title for part in document.sections] == [
        "Runs", "Configuration", "Scores", "Training", "Conditioning"
    ]  # fmt: skip
    names = [block.name for block in section(document, "Training")]
    assert names == ["training-loss", "training-accuracy"]


def test_what_a_mean_leaves_out_is_said(tmp_path, undrawn):
    lines = make_lines()
    diverged = [lines[0], lines[1] | {"loss": None, "loss/part": None}]
    folders = [
        make_run(tmp_path / "a", lines=lines),
        make_run(tmp_path / "b", lines=diverged, seed=1),
        make_run(tmp_path / "c", lines=lines[:1], seed=2),
    ]
    assert remarks(section(build(*folders), "Training")) == [
        "b: loss, loss/part not finite in 1 of 2 lines of the log, first at step 20: left out of "
        "the curves",
        "no technique: the runs end at steps 10, 20, and a mean is over those that got so far",
    ]
    assert remarks(section(build(folders[0]), "Training")) == []


def test_further_values_that_no_run_has_are_left_out(tmp_path):
    def scores(std):
        return {"variation_predictability": {"score": 0.5, "details": {"std": std}}}

    folders = [make_run(tmp_path / "a", scores=scores(None))]
    table, *_ = section(build(*folders), "Scores")
    assert [row[0] for row in table.rows] == ["variation_predictability"]
    folders.append(make_run(tmp_path / "b", scores=scores(0.25), techniques=["nog"]))
    table, *_ = section(build(*folders), "Scores")
    assert table.rows[1] == ["variation_predictability, std", "undefined", "0.2500"]


def test_what_a_run_lacks_is_said(tmp_path):
    folder = make_run(tmp_path / "a")
    document = build(folder)
    assert section(document, "Scores") == [
        Text("No run has been evaluated: disentangle evaluate does so.")
    ]
    assert remarks(section(document, "Training")) == [
        f"{folder} has no log: it has not been trained"
    ]
    assert "No conditioning was logged" in section(document, "Conditioning")[0].text
    assert remarks(section(document, "Activeness of the axes")) == [
        "no technique: neither evaluated nor logged"
    ]
    assert remarks(section(document, "Samples")) == [
        f"no technique, run {folder}: no sheet of samples"
    ]
    assert remarks(section(document, "Traversals")) == [f"no technique, run {folder}: no model yet"]
    assert "Traversals" not in [part.title for part in build(folder, traversals=0).sections]
    assert not of_kind([b for part in document.sections for b in part.blocks], Picture)


# Pictures of generators


def test_an_eigengan_is_traversed_block_by_block(tmp_path):
    folder = make_run(tmp_path / "a", task="gan")
    add_model(folder, EigenGAN(image_size=32, base_channels=4, noise_dim=8))
    pictures = of_kind(section(build(folder, traversals=2), "Traversals"), Picture)
    assert [picture.name for picture in pictures] == [f"traversal-1-{i}" for i in range(3)]
    for picture in pictures:
        with Image.open(BytesIO(picture.content)) as image:
            assert image.size == (picture.width, picture.height)
            assert (image.width, image.height) > (2 * 9 * 64, 6 * 64)
    assert "block 1, each axis moved alone" in pictures[1].caption


def test_of_many_axes_the_most_active_are_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr("disentangle.reporting.traversals.RANKING_LATENTS", 2)
    folder = make_run(tmp_path / "a", task="gan")
    add_model(folder, SimpleGAN(image_size=64, base_channels=2, latent_dim=MOST + 2))
    (picture,) = draw_traversals([generator_of(folder)], samples=1, seed=0).blocks
    assert f"the {MOST} most active of {MOST + 2}" in picture.caption
    assert picture.height < (MOST + 2) * 66


def test_a_model_that_diverged_is_reported(tmp_path):
    folder = make_run(tmp_path / "a", task="gan")
    model = EigenGAN(image_size=32, base_channels=4, noise_dim=8)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    add_model(folder, model)
    blocks = section(build(folder), "Traversals")
    (said,) = remarks(blocks)
    assert said.startswith(
        f"no technique, run {folder}: could not be drawn: decode must give finite"
    )


def test_activeness_is_that_of_the_scores_or_else_of_the_log(tmp_path):
    lines = [{"step": 10, "activeness/block 0": 0.5}, {"step": 20, "activeness/block 0": 0.25}]
    details = {"per_axis": [0.5, None], "standard_errors": [0.1, 0.1]}
    scores = {"activeness": {"score": 0.5, "details": details}}
    scored = generator_of(make_run(tmp_path / "a", scores=scores, lines=lines))
    bars = find_scored(scored)
    np.testing.assert_array_equal(bars.values, [0.5, np.nan])
    assert bars.names == ["axis 0", "axis 1"]  # there is no model to name them
    assert bars.source == "activeness of each axis, scored at step 20; whiskers: standard error"
    logged = generator_of(make_run(tmp_path / "b", lines=lines))
    assert find_scored(logged) is None
    bars = find_logged(logged)
    assert (bars.names, bars.values.tolist()) == (["block 0"], [0.25])
    assert "logged in training at step 20 (not evaluated)" in bars.source


def test_the_newest_sheet_of_samples_is_shown(tmp_path):
    folder = make_run(tmp_path / "a")
    (folder / "samples").mkdir()
    for step, colour in ((10, "black"), (200, "red")):
        Image.new("RGB", (40, 20), colour).save(folder / "samples" / f"step-{step:07}.png")
    (picture,) = section(build(folder), "Samples")
    assert f"run {folder}: step 200. Two rows of images" in picture.caption
    with Image.open(BytesIO(picture.content)) as image:
        assert image.width == 12 * 40  # enlarged by whole pixels
        assert image.convert("RGB").getpixel((5, 5))[0] > 200
    (folder / "samples" / "step-0000300.png").write_bytes(b"torn")
    assert remarks(section(build(folder), "Samples"))


# Files


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("ending", ["html", "md"])
def test_nothing_is_replaced_unless_asked(experiments, tmp_path, complaint, ending):
    file = tmp_path / f"report.{ending}"
    arguments = [experiments[0], "--out", file]
    file.write_text("mine")
    assert f"{file} exists: add --overwrite" in complaint(report.main, arguments)
    assert file.read_text() == "mine"
    assert report.main([*map(str, arguments), "--overwrite"]) == 0
    assert "mine" not in file.read_text()


@pytest.mark.usefixtures("undrawn")
def test_other_files_beside_the_pictures_stay(experiments, tmp_path, complaint):
    folder = tmp_path / "report_files"
    folder.mkdir()
    (folder / "note.txt").write_text("mine")
    arguments = [experiments[0], "--out", tmp_path / "report.md"]
    assert f"{folder} exists" in complaint(report.main, arguments)
    assert report.main([*map(str, arguments), "--overwrite"]) == 0
    assert (folder / "note.txt").read_text() == "mine"
    assert len(list(folder.iterdir())) > 1


@pytest.mark.usefixtures("undrawn")
def test_the_format_decides_the_default_file(experiments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for kind, name in (("markdown", "report.md"), ("html", "report.html")):
        assert report.main([str(experiments[2]), "--format", kind, "--traversals", "0"]) == 0
        assert (tmp_path / name).is_file()


def test_what_the_readme_shows_can_be_parsed():
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = re.findall(r"^disentangle report (.*)$", readme, flags=re.M)
    assert lines
    for line in lines:
        parse_arguments(report.build_parser(), shlex.split(line, comments=True))


def test_bad_input_gets_one_line(experiments, tmp_path, complaint):
    run, out = experiments[0], ["--out", tmp_path / "x.html"]
    (tmp_path / "y_files").write_text("a file")
    cases = [
        (["/no/such/run", *out], "there is no run folder /no/such/run"),
        ([tmp_path, *out], "is not a run folder"),
        ([run, "--out", tmp_path / "x.pdf"], "the file must end in .html or .md, got"),
        ([run, *out, "--format", "markdown"], "the file must end in .md, got"),
        ([run, *out, "--format", "word"], "html"),
        ([run, "--out", tmp_path / "no" / "x.html"], "there is no folder"),
        ([run, "--out", tmp_path / "y.md"], "y_files is not a writable folder"),
        ([run, *out, "--traversals", "-1"], "--traversals must be between 0 and 100, got -1"),
        ([run, *out, "--traversals", "101"], "--traversals must be between 0 and 100, got 101"),
        ([run, *out, "--traversal", "1"], "did you mean traversals?"),
        ([run, *out, "--device", "none"], "--device 'none' cannot be used here"),
        ([*out], "run"),
    ]
    for arguments, message in cases:
        assert message in complaint(report.main, arguments), arguments
    (run / "scores.json").write_text("[]")
    assert "is not what `disentangle evaluate` writes" in complaint(report.main, [run, *out])
    assert not list(tmp_path.glob("x*"))


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_is_named_twice_is_one(experiments, tmp_path):
    file = tmp_path / "x.md"
    names = [str(experiments[0]), f"{experiments[0]}/../a"]
    assert report.main([*names, "--out", str(file)]) == 0
    assert file.read_text().startswith("# 1 run of 1 experiment\n")


@pytest.mark.usefixtures("undrawn")
def test_the_command_is_known(monkeypatch, experiments, tmp_path, capsys):
    from disentangle.__main__ import main

    arguments = ["report", str(experiments[0]), "--out", str(tmp_path / "x.html")]
    monkeypatch.setattr(sys, "argv", ["disentangle", *arguments])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 0
    assert capsys.readouterr().out.startswith("report: ")
