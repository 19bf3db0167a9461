import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from disentangle.config import VAEObjective, fill_defaults
from disentangle.config.parse import parse_run

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
NAMES = ["--task", "vae", "--model.name", "subspace_vae", "--data.name", "sprites"]
VAE = [*NAMES, "--output", "run"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_recipe_parses_and_is_short(config):
    text = config.read_text()
    needs_none = any(f"name: {name}" in text for name in ("sprites", "scene", "digits"))
    path = [] if needs_none else ["--data.path", "somewhere"]
    run, _ = parse_run(["--config", str(config), *path])
    assert run.output == Path("runs") / config.stem
    saved = yaml.safe_load(run.dump())
    assert fill_defaults(saved) == saved
    older = saved | {"training": {k: v for k, v in saved["training"].items() if k != "starts"}}
    assert fill_defaults(older)["training"]["starts"] == 1
    assert f"--config configs/{config.name}" in text.splitlines()[0]
    assert 10 <= len(text.splitlines()) <= 32


def test_later_options_override_earlier_ones(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("training: {steps: 5, batch_size: 3}\nobjective: {beta: 2.0}\n")
    run, _ = parse_run([*VAE, "--config", str(config), "--training.steps", "7"])
    assert (run.training.steps, run.training.batch_size) == (7, 3)
    assert run.objective == VAEObjective(beta=2.0)


def test_the_name_in_a_config_can_be_overridden(tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text("data: {name: folder}\n")
    run, _ = parse_run(["--config", str(config), *VAE])
    assert run.data == {"name": "sprites", "orientations": 40}


def test_round_trip_through_yaml(tmp_path):
    run, _ = parse_run([*VAE, "--orthogonality", "[nog, olr]", "--optimizer.betas", "[0.5, 0.9]"])
    saved = tmp_path / "config.yaml"
    saved.write_text(run.dump())
    assert parse_run(["--config", str(saved)])[0] == run


@pytest.mark.parametrize(
    ("options", "resume"),
    [([], None), (["--resume"], "latest"), (["--resume", "step-3"], "step-3")],
)
def test_resume_takes_an_optional_checkpoint(options, resume):
    assert parse_run([*VAE, *options])[1].resume == resume


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "task is missing; choose one of: gan, vae"),
        (["--task", "gam"], "task has no choice 'gam'; choose one of: gan, vae"),
        (["--task", "[vae]"], "task has no choice '[vae]'"),
        (["--task", "vae"], "data.name is missing; choose one of: sprites, shapes, dsprites, "),
        ([*NAMES, "--model.name", "vgg"], "model.name has no choice 'vgg'; choose one of: sub"),
        ([*VAE, "--model.name"], "expected one argument"),
        (NAMES, "required: output"),
        ([*VAE, "--training.stepz", "3"], "--training.stepz 3; did you mean training.steps?"),
        ([*VAE, "--betas", "3"], "--betas 3; did you mean optimizer.betas?"),
        ([*VAE, "--training.steps", "many"], "training.steps: expected int, got many"),
        ([*VAE, "--training.steps", "0"], "training.steps must be positive, got 0"),
        ([*VAE, "--training.workers", "-1"], "training.workers must not be negative, got -1"),
        ([*VAE, "--orthogonality", "[noq]"], "expected one of 'nog', 'olr', 'nou', 'ol', "),
        ([*VAE, "--orthogonality", "nog"], "expected a list such as [a, b], got nog"),
        ([*VAE, "--orthogonality", "[nog, nog]"], "names a technique twice: ['nog', 'nog']"),
        ([*VAE, "--orthogonality", "[ow, sn]"], "may hold one of ow, ow_kernel and sn, which"),
        ([*VAE, "--orthogonality", "[ow, ow_kernel]"], "may hold one of ow, ow_kernel and sn"),
        ([*VAE, "--orthogonality", "[nog, olr, nou]"], "may hold one of nog and nou, each of"),
        ([*VAE, "--nog_scale", "norm"], "nog_scale: expected one of 'unit', 'gradient', got norm"),
        ([*VAE, "--nog_scale", "gradient"], "nog_scale gradient requires nog in orthogonality"),
        (
            [*VAE, "--orthogonality", "[ow]", "--pre_svd_parameters", "[encoder.hidden.weight]"],
            "pre_svd_parameters cannot be chosen with ow, ow_kernel or sn",
        ),
        ([*VAE, "--model.pre_svd_weight", "orthogonal"], "choose it by orthogonality, which takes"),
        ([*VAE, "--optimizer.lr", "0"], "optimizer.lr must be positive, got 0"),
        ([*VAE, "--optimizer.betas", "[1, 0]"], "optimizer.betas must lie in [0, 1)"),
        ([*VAE, "--objective.beta", "-1"], "objective.beta must not be negative, got -1"),
        ([*VAE, "--objective.r1_weight", "1"], "unrecognized arguments: --objective.r1_weight"),
        ([*VAE, "--discriminator.base_channels", "4"], "--discriminator.base_channels"),
        (
            [*VAE, "--data.name", "folder", "--data.path", ""],
            "data.path must name a file or folder",
        ),
        ([*VAE, "--seed", "-1"], "seed must be between 0 and 2**63 - 1, got -1"),
        ([*VAE, "--config", "nowhere.yaml"], "cannot read the configuration nowhere.yaml: No such"),
        ([*VAE, "extra"], "unrecognized arguments: extra"),
    ],
)
def test_bad_options_get_one_line(options, message):
    with pytest.raises(ValueError, match=r".") as caught:
        parse_run(options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training: {stepz: 3}", "does not accept option 'stepz'; did you mean training.steps?"),
        ("training: {steps: many}", "training.steps: expected int, got many"),
        ("trainings: {steps: 3}", "trainings"),
        ("model: {pre_svd_weight: spectral}", "model.pre_svd_weight is no option of a run: choose"),
        ("training: 3", "training must be a mapping of options, got 3"),
        ("data: [1]", "data must be a mapping of options, got [1]"),
        ("[1, 2]", "a.yaml must hold a mapping of options"),
        ("training: {steps: [", "a.yaml is not YAML"),
        ("\x00", "a.yaml is not YAML"),
    ],
)
def test_bad_configurations_get_one_line(tmp_path, content, message):
    (tmp_path / "a.yaml").write_text(content)
    with pytest.raises(ValueError, match=r".") as caught:
        parse_run([*VAE, "--config", str(tmp_path / "a.yaml")])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# What is written, and what options for whole numbers, numbers and text make of it: None refuses it.
WRITTEN = {
    "base 60": ("1:30", None, None, "1:30"),
    "base 60 with a fraction": ("1:30.5", None, None, "1:30.5"),
    "leading zeros": ("017", 17, 17.0, "017"),
    "leading zeros that are not octal": ("089", 89, 89.0, "089"),
    "octal after a sign": ("+017", None, None, "+017"),
    "octal with an underscore": ("01_7", None, None, "01_7"),
    "octal of YAML 1.2": ("0o17", None, None, "0o17"),
    "hexadecimal": ("0x1F", 31, 31.0, None),
    "binary": ("0b11", 3, 3.0, None),
    "underscores": ("1_000", 1000, 1000.0, None),
    "an exponent": ("1e3", None, 1000.0, None),
    "an exponent after a point": ("1.5E+3", None, 1500.0, None),
    "a thousand with a comma": ("1,000", None, None, "1,000"),
    "yes": ("yes", None, None, "yes"),
    "off": ("off", None, None, "off"),
    "a date": ("2026-01-31", None, None, "2026-01-31"),
    "a time": ("2026-01-31 10:20:30", None, None, "2026-01-31 10:20:30"),
}


@pytest.mark.parametrize("source", ["file", "command line"])
@pytest.mark.parametrize(("text", "whole", "number", "path"), WRITTEN.values(), ids=WRITTEN)
def test_what_looks_like_a_number_is_what_users_expect(tmp_path, source, text, whole, number, path):
    if source == "command line":  # where an option of text has it as it stands
        path = text
    for name, expected in (("training.steps", whole), ("optimizer.lr", number), ("output", path)):
        section, _, key = name.rpartition(".")
        content = {section: {key: "VALUE"}} if section else {key: "VALUE"}
        (tmp_path / "a.yaml").write_text(yaml.safe_dump(content).replace("VALUE", text))
        file = ["--config", str(tmp_path / "a.yaml")] if source == "file" else []
        given = [*NAMES, *(() if name == "output" else ("--output", "run")), *file]
        given += [] if file else [f"--{name}", text]
        if expected is None:
            with pytest.raises(ValueError, match=f"{name}: expected .*, got"):
                parse_run(given)
            continue
        found = parse_run(given)[0]
        for part in name.split("."):
            found = getattr(found, part)
        assert found == (Path(expected) if name == "output" else expected)
        assert type(found) in (type(expected), type(Path()))


@pytest.mark.parametrize("given", [["--seed=1:30"], ["--seed", "1:30"], ["--seed", "!!int 1:30"]])
def test_base_60_numbers_are_refused_however_they_are_given(tmp_path, given):
    with pytest.raises(ValueError, match=r"^seed: expected a decimal number, got .*1:30$"):
        parse_run([*VAE, *given])
    for text in ("1:30", "'1:30'"):
        (tmp_path / "a.yaml").write_text(f"seed: {text}")
        with pytest.raises(ValueError, match=r"^seed: expected a decimal number, got 1:30$"):
            parse_run([*VAE, "--config", str(tmp_path / "a.yaml")])
    (tmp_path / "a.yaml").write_text("seed: !!int 1:30")
    with pytest.raises(ValueError, match="'1:30' must be a decimal number without a tag"):
        parse_run([*VAE, "--config", str(tmp_path / "a.yaml")])


@pytest.mark.parametrize("betas", ["[1:30, 0.5]", "[0.5, 0:30.5]"])
def test_base_60_numbers_are_refused_in_lists(tmp_path, betas):
    (tmp_path / "a.yaml").write_text(f"optimizer: {{betas: {betas}}}")
    for given in (["--optimizer.betas", betas], ["--config", str(tmp_path / "a.yaml")]):
        with pytest.raises(ValueError, match=r"^optimizer\.betas: expected a decimal number"):
            parse_run([*VAE, *given])


@pytest.mark.parametrize(
    ("option", "text", "expected"),
    [
        ("training.flip", "yes", True),
        ("training.flip", "Off", False),
        ("training.flip", "true", True),
        ("training.mixed_precision", "no", "no"),
        ("training.mixed_precision", "null", None),
        ("pre_svd_parameters", "[on, 017, 1:30]", ("on", "017", "1:30")),
    ],
)
def test_words_for_truth_values_are_text_where_text_is_wanted(tmp_path, option, text, expected):
    section, _, key = option.rpartition(".")
    (tmp_path / "a.yaml").write_text(
        f"{section}: {{{key}: {text}}}" if section else f"{key}: {text}"
    )
    for given in ([f"--{option}", text], ["--config", str(tmp_path / "a.yaml")]):
        found = parse_run([*VAE, *given])[0]
        for part in option.split("."):
            found = getattr(found, part)
        assert found == expected


def test_text_that_looks_like_a_number_comes_back_from_a_saved_run(tmp_path):
    for output in ("1e3", "017", "1:30", "no", "2026-01-31", "089", "null", "1_000"):
        run, _ = parse_run([*NAMES, "--output", output])
        (tmp_path / "config.yaml").write_text(run.dump())
        assert yaml.safe_load(run.dump())["output"] == output  # of any other reader too
        assert parse_run(["--config", str(tmp_path / "config.yaml")])[0] == run


@pytest.mark.parametrize("task", ["gan", "vae", "classification"])
def test_help_of_a_task_shows_its_first_model(task, capsys):
    with pytest.raises(SystemExit) as exit_:
        parse_run(["--task", task, "--help"])
    assert exit_.value.code == 0
    assert "--model.name" in capsys.readouterr().out


def test_an_empty_configuration(tmp_path):
    (tmp_path / "a.yaml").touch()
    with pytest.raises(ValueError, match="must hold a mapping of options, got an empty file"):
        parse_run(["--config", str(tmp_path / "a.yaml")])


def test_help_shows_the_knobs_of_what_was_chosen():
    command = [sys.executable, "-m", "disentangle.train", *NAMES, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    for knob in ("--model.subspace_count", "--objective.beta", "--training.batch_size"):
        assert knob in done.stdout
    assert "Depths at which the code enters the decoder" in done.stdout
    assert "r1_weight" not in done.stdout
    assert "pre_svd_weight" not in done.stdout
    assert "--model CONFIG" not in done.stdout  # a section is given by its options only


@pytest.mark.parametrize(
    ("techniques", "weight"),
    [
        ("[nog, olr]", "free"),
        ("[nog, ow]", "orthogonal"),
        ("[nou, ow_kernel]", "orthonormal_kernel"),
        ("[sn, ol]", "spectral"),
    ],
)
def test_the_constraint_of_the_weights_comes_from_the_techniques(tmp_path, techniques, weight):
    run, _ = parse_run([*VAE, "--model.image_size", "32", "--orthogonality", techniques])
    assert run.build_model().config.pre_svd_weight == weight
    saved = tmp_path / "config.yaml"
    saved.write_text(run.dump())
    assert "pre_svd_weight" not in saved.read_text()
    assert parse_run(["--config", str(saved)])[0] == run


def test_files_are_found_from_any_folder():
    data = ["--data.name", "scream_dsprites", "--data.path", "d.npz", "--data.picture", "p.jpg"]
    run, _ = parse_run([*VAE, "--model.image_channels", "3", *data])
    assert (run.data["path"], run.data["picture"]) == (
        str(Path("d.npz").absolute()),
        f"{Path.cwd()}/p.jpg",
    )


def test_dumped_values_are_plain():
    assert yaml.safe_load(parse_run(VAE)[0].dump())["optimizer"]["betas"] == [0.9, 0.999]


def test_a_number_in_another_base_may_be_overridden(tmp_path):
    file = tmp_path / "x.yaml"
    file.write_text("task: vae\nmodel: {name: subspace_vae}\ndata: {name: sprites}\nseed: 1:30\n")
    run, _ = parse_run(["--config", str(file), "--output", "runs/x", "--seed", "4"])
    assert run.seed == 4
