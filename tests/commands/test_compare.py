import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from disentangle import compare
from disentangle.curves import group_runs
from disentangle.output.tables import FORMATS, format_table
from disentangle.runs.experiments import group_by_experiment
from disentangle.runs.run import Run


def make_run(folder, scores, *, seed=0, step=10, techniques=(), **config):
    folder.mkdir()
    run = {"task": "vae", "model": {}, "data": {}, "output": str(folder), "seed": seed}
    run |= {"orthogonality": list(techniques)} | config
    (folder / "config.yaml").write_text(yaml.safe_dump(run))
    entries = {
        name: {"score": score, "protocol": {"bins": 20}, "details": {}}
        for name, score in scores.items()
    }
    (folder / "scores.json").write_text(json.dumps({"step": step, "scores": entries}))
    return str(folder)


def change(run, name, **entry):
    file = Path(run, "scores.json")
    report = json.loads(file.read_text())
    report["scores"][name] |= entry
    file.write_text(json.dumps(report))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of one experiment, one of another."""
    return [
        make_run(tmp_path / "a", {"sap": 0.2, "mig": 0.1}, seed=0, techniques=["nog"]),
        make_run(tmp_path / "b", {"sap": 0.4, "mig": 0.4}, seed=1, techniques=["nog"]),
        make_run(tmp_path / "c", {"mig": 0.8}),
    ]


def test_runs_side_by_side(runs, capsys):
    assert compare.main(runs) == 0
    assert capsys.readouterr().out == (
        "metric  NOG (2 runs)     no technique\n"
        "mig     0.2500 ± 0.2121  0.8000\n"
        "sap     0.3000 ± 0.1414\n"
    )


def test_columns_that_a_terminal_has_no_room_for(runs, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    compare.main([*runs, "--metrics", "mig"])
    assert capsys.readouterr().out == (
        "metric  NOG (2 runs)\nmig     0.2500 ± 0.2121\n\nmetric  no technique\nmig     0.8000\n"
    )


def test_a_run_that_is_given_twice_counts_once(runs, capsys):
    compare.main([runs[0], runs[0] + "/../a", runs[1]])
    assert "NOG (2 runs)" in capsys.readouterr().out


def test_csv_has_a_line_for_each_number_in_full(runs, capsys):
    compare.main([*runs, "--format", "csv"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "metric,experiment,mean,std,runs,undefined"
    assert lines[1] == f"mig,NOG,0.25,{np.std([0.1, 0.4], ddof=1)},2,0"
    assert lines[2] == "mig,no technique,0.8,,1,0"
    assert len(lines) == 4


def test_markdown_and_latex(runs, capsys):
    compare.main([*runs, "--format", "markdown", "--metrics", "mig"])
    assert capsys.readouterr().out.splitlines()[-1] == "| mig | 0.2500 ± 0.2121 | 0.8000 |"
    compare.main([*runs, "--format", "latex", "--metrics", "mig"])
    assert r"mig & 0.2500 $\pm$ 0.2121 & 0.8000 \\" in capsys.readouterr().out


def test_experiments_with_the_same_techniques_are_told_apart(tmp_path, capsys):
    make = [make_run(tmp_path / name, {"mig": 0.5}, objective={"beta": name}) for name in "ab"]
    compare.main(make)
    header = "no technique, objective.beta a  no technique, objective.beta b"
    assert header in capsys.readouterr().out
    many = make_run(tmp_path / "c", {"mig": 0.5}, objective={"beta": 1, "kind": "beta", "steps": 2})
    compare.main([make[0], many])
    assert f"no technique: {make[0]}  no technique: {many}" in capsys.readouterr().out


def find_labels(printed):
    """The header of a table, without the first column."""
    return printed.splitlines()[0].split("  ")[1:]


SAME = [
    ({"discriminator": {}}, {}),
    ({"pre_svd_parameters": None}, {"pre_svd_parameters": "null"}),
    ({"techniques": ["nog", "olr"]}, {"techniques": ["olr", "nog"]}),
    ({"optimizer": {"weight_decay": 0}}, {"optimizer": {"weight_decay": 0.0}}),
    ({"optimizer": {"betas": [0, 1]}}, {"optimizer": {"betas": [0.0, 1.0]}}),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=str)
def test_what_means_the_same_is_one_experiment(tmp_path, capsys, one, other):
    runs = [
        make_run(tmp_path / str(seed), {"mig": seed / 2}, seed=seed, **config)
        for seed, config in enumerate((one, other))
    ]
    compare.main(runs)
    header, scores = capsys.readouterr().out.splitlines()
    assert header.endswith(" (2 runs)")
    assert scores == "mig     0.2500 ± 0.3536"


LONG = 50 * "x"
DIFFERENT = [
    ("model", {"a": "x, b y", "b": "z"}, {"a": "x", "b": "y, b z"}),  # in the same words
    ("model", {"a": "-"}, {}),
    ("data", {"path": LONG + "1"}, {"path": LONG + "2"}),
    ("data", {LONG + "1": 0}, {LONG + "2": 0}),
    ("model", {"name": "a\nb"}, {"name": r"a\nb"}),
    ("model", {"name": "a"}, {"name": "a (mean, range of 2)"}),
    ("model", {"name": '"a)"'}, {"name": "a)"}),
    ("objective", {"steps": 1e20}, {"steps": 2e20}),
]


@pytest.mark.parametrize(("section", "one", "other"), DIFFERENT, ids=str)
def test_no_experiment_has_the_name_of_another(tmp_path, section, one, other):
    folders = [
        make_run(tmp_path / f"{number}", {"mig": 0.5}, seed=number, **{section: values})
        for number, values in enumerate((one, one, other))
    ]
    runs = [Run(folder) for folder in folders]
    for groups in (group_by_experiment(runs), group_runs(runs)):
        assert [[str(run.folder.path) for run in group] for group in groups.values()] == [
            folders[:2],
            folders[2:],
        ]
        assert all(len(label) < 150 or str(tmp_path) in label for label in groups)
        assert all(map(str.isprintable, groups))


def test_folders_that_look_alike_are_told_apart(tmp_path):
    names = ["a\nb", r"a\nb", "a", "a (mean, range of 2)"]
    configs = [
        *({"model": dict.fromkeys("xyz", i)} for i in (1, 2, 3)),
        {"model": {"other": 0}},
    ]
    folders = [
        make_run(tmp_path / name, {"mig": 0.5}, **config)
        for name, config in zip(names, configs, strict=True)
    ]
    folders.append(make_run(tmp_path / "again", {"mig": 0.5}, seed=1, **configs[2]))
    groups = group_runs([Run(folder) for folder in folders])
    assert list(groups) == [
        rf"no technique: {tmp_path}/a\nb",
        rf"no technique: {tmp_path}/a\\nb",
        f"no technique: {tmp_path}/a (mean, range of 2)",
        f'no technique: "{tmp_path}/a (mean, range of 2)"',
    ]


def test_values_in_names_are_cut(tmp_path, capsys):
    paths = [letter + 100_000 * "x" for letter in "ab"]
    compare.main([make_run(tmp_path / p[0], {"mig": 0.5}, data={"path": p}) for p in paths])
    assert find_labels(capsys.readouterr().out) == [
        f"no technique, data.path {letter}{38 * 'x'}…" for letter in "ab"
    ]


@pytest.mark.parametrize("kind", FORMATS)
def test_what_others_wrote_cannot_move_the_cursor(tmp_path, capsys, kind):
    hostile = "a\x1b[31mred\nline2\x1b]0;pwn\a\u202e"
    runs = [
        make_run(tmp_path / name, {"mig": 0.5}, model={"name": name, hostile: 0}, step=step)
        for step, name in enumerate((hostile, "b"))
    ]
    change(runs[0], "mig", protocol={"bins": hostile}, details={"caveat": hostile})
    compare.main([*runs, "--format", kind])
    printed = "".join(capsys.readouterr())
    assert "\\x1b[31mred" in printed.replace(r"\textbackslash{}", "\\")
    assert printed.replace("\n", "").isprintable()
    assert not [line for line in printed.splitlines() if line.startswith("line2")]


def test_experiments_of_which_much_differs_are_told_apart_by_what_they_train(tmp_path, capsys):
    objective = {"kind": "beta", "beta": 4, "likelihood": "bernoulli"}
    folders = [
        make_run(tmp_path / "a", {"mig": 0.5}, model={"name": "eigengan"}),
        make_run(tmp_path / "b", {"mig": 0.5}, model={"name": "vae"}, objective=objective),
    ]
    compare.main(folders)
    header = "no technique, model.name eigengan  no technique, model.name vae"
    assert header in capsys.readouterr().out


def test_a_score_that_some_runs_lack_says_how_many_have_it(tmp_path, capsys):
    more = make_run(tmp_path / "d", {"mig": 0.5, "irs": 0.25}, seed=2)
    less = make_run(tmp_path / "e", {"mig": 0.5}, seed=3)
    compare.main([more, less])
    assert "irs     0.2500 (1 of 2)" in capsys.readouterr().out


def test_further_values_are_shown(tmp_path, capsys):
    run = make_run(tmp_path / "run", {"dci (fitted encoder)": 0.75})
    details = {"completeness": 0.25, "informativeness": 0.5}
    change(run, "dci (fitted encoder)", details=details)
    compare.main([run])
    out = capsys.readouterr().out
    assert "dci (fitted encoder)                   0.7500" in out
    assert "dci (fitted encoder), informativeness  0.5000" in out


def test_runs_of_the_same_seed_are_named(tmp_path, capsys):
    once, again = (make_run(tmp_path / name, {"mig": 0.5}, seed=3) for name in ("once", "again"))
    compare.main([once, again, make_run(tmp_path / "other", {"mig": 0.4}, seed=4)])
    assert capsys.readouterr().out.splitlines()[-1] == f"alike in seed, too: {once}, {again}"


def test_what_does_not_compare_is_said(runs, tmp_path, capsys):
    change(runs[0], "mig", protocol={"bins": 10})
    change(runs[2], "mig", details={"caveat": "random features"})
    file = tmp_path / "c" / "scores.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"step": 20}))
    compare.main([*runs, "--format", "csv"])
    assert capsys.readouterr().err.splitlines() == [
        "",
        "mig: protocols differ: bins 10; bins 20",
        "mig: random features",
        "training steps differ: 10, 20",
    ]


def test_scores_among_different_runs_do_not_compare(runs, capsys):
    for run, company in ((runs[0], ["x", "y"]), (runs[1], ["x", "y"]), (runs[2], ["z", "w"])):
        change(run, "mig", protocol={"runs": company, "seeds": [len(company[0])]})
    compare.main(runs[:2])
    assert "mig:" not in capsys.readouterr().out
    change(runs[1], "mig", protocol={"runs": ["x", "y"], "seeds": [7]})
    compare.main(runs)
    out = capsys.readouterr().out
    assert out.count("mig:") == 1
    assert "mig: scored among different runs, and only comparable within each" in out


def test_scores_that_are_not_finite(runs, capsys):
    for score, expected in ((None, "undefined"), ("Infinity", "inf"), ("-Infinity", "-inf")):
        change(runs[0], "mig", score=score)
        compare.main(runs[:1])
        assert f"mig     {expected}\n" in capsys.readouterr().out
    change(runs[0], "mig", score="Infinity")
    compare.main(runs)
    assert "mig     inf    " in capsys.readouterr().out
    change(runs[0], "mig", score=None)
    compare.main(runs)
    assert "mig     undefined in 1 of 2  0.8000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("scores", "cell", "record"),
    [
        ([3e-5, 1e-5], "2.0e-05 ± 1.4e-05", None),
        ([1e30, 1e30], "1.0000e+30 ± 0.0000", "1e+30,0.0,2,0"),
        ([1e300, 3e300], "2.0000e+300 ± inf", "2e+300,inf,2,0"),
        (["Infinity", "-Infinity"], "undefined", ",,2,0"),
        (["Infinity", 0.5], "inf", "inf,,2,0"),
        (["Infinity", "-Infinity", "missing"], "undefined (2 of 3)", ",,2,0"),
        ([None, 0.5, 0.5], "undefined in 1 of 3", ",,3,1"),
        ([None, 0.5, "missing"], "undefined in 1, missing in 1 of 3", ",,2,1"),
        ([None, None], "undefined in 2 of 2", ",,2,2"),
        ([None], "undefined", ",,1,1"),
    ],
    ids=str,
)
def test_a_cell_says_what_there_is(tmp_path, capsys, scores, cell, record):
    runs = []
    for seed, score in enumerate(scores):
        had = {"mig": 0.5} if score == "missing" else {"mig": 0.5, "sap": 0.5}
        runs.append(make_run(tmp_path / str(seed), had, seed=seed))
        if score != "missing":
            change(runs[-1], "sap", score=score)
    compare.main(runs)
    assert f"sap     {cell}" in capsys.readouterr().out.splitlines()
    compare.main([*runs, "--format", "csv"])
    if record is not None:
        assert f"sap,no technique,{record}" in capsys.readouterr().out.splitlines()


def test_a_further_value_that_is_infinite(tmp_path, capsys):
    run = make_run(tmp_path / "run", {"infomec": 0.75})
    change(run, "infomec", details={"infoe": "-Infinity", "infoc": None})
    compare.main([run])
    out = capsys.readouterr().out
    assert "infomec, infoe  -inf" in out
    assert "infoc" not in out  # no run has it
    other = make_run(tmp_path / "other", {"infomec": 0.75}, orthogonality=["nog"])
    change(other, "infomec", details={"infoe": 0.5, "infoc": 0.25})
    compare.main([run, other])
    assert "infomec, infoc  undefined" in capsys.readouterr().out


def test_bad_input(runs, tmp_path, complaint):
    assert "there is no run folder" in complaint(compare.main, [tmp_path / "none"])
    assert "no run has a score of dci" in complaint(compare.main, [*runs, "--metrics", "dci"])
    assert "no choice 'mug'" in complaint(compare.main, [*runs, "--metrics", "mug"])
    assert "expected one of" in complaint(compare.main, [*runs, "--format", "word"])
    file = tmp_path / "a" / "scores.json"
    word = '{"step": 1, "scores": {"mig": {"score": "high", "details": {}}}}'
    for content in ("", "[]", '{"step": 1}', '{"step": 1, "scores": {"mig": 3}}', word):
        file.write_text(content)
        assert "is not what `disentangle evaluate` writes" in complaint(compare.main, runs)
    detail = {"score": 0.5, "protocol": {}, "details": {"infoe": "high"}}
    file.write_text(json.dumps({"step": 1, "scores": {"infomec": detail}}))
    message = f"{file}: infoe in scores.json must be a number, got 'high'"
    assert message in complaint(compare.main, runs)
    file.unlink()
    assert "has no scores.json: run `disentangle evaluate` first" in complaint(compare.main, runs)


def test_the_command_is_known(monkeypatch, runs, capsys):
    from disentangle.__main__ import main

    monkeypatch.setattr(sys, "argv", ["disentangle", "compare", *runs])
    with pytest.raises(SystemExit) as exited:
        main()
    assert exited.value.code == 0
    assert "NOG (2 runs)" in capsys.readouterr().out


@pytest.mark.parametrize("kind", FORMATS)
def test_tables_keep_what_is_special_in_a_format(kind):
    text = format_table(["name", "value"], [["a,b|c_d&e", 0.00001], ["x", None]], kind)
    expected = {
        "text": "a,b|c_d&e  1.0e-05",
        "markdown": r"| a,b\|c_d&e | 1.0e-05 |",
        "csv": '"a,b|c_d&e",1e-05',
        "latex": r"a,b|c\_d\&e & 1.0e-05 \\",
    }
    assert expected[kind] in text.splitlines()
