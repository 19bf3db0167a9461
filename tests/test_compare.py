import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from disentangle import compare
from disentangle.tables import FORMATS, format_table


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


def test_a_run_that_is_given_twice_counts_once(runs, capsys):
    compare.main([runs[0], runs[0] + "/../a", runs[1]])
    assert "NOG (2 runs)" in capsys.readouterr().out


def test_csv_has_a_line_for_each_number_in_full(runs, capsys):
    compare.main([*runs, "--format", "csv"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "metric,experiment,mean,std,runs"
    assert lines[1] == f"mig,NOG,0.25,{np.std([0.1, 0.4], ddof=1)},2"
    assert lines[2] == "mig,no technique,0.8,,1"
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


def test_a_further_value_that_is_infinite(tmp_path, capsys):
    run = make_run(tmp_path / "run", {"infomec": 0.75})
    change(run, "infomec", details={"infoe": "-Infinity", "infoc": None})
    compare.main([run])
    out = capsys.readouterr().out
    assert "infomec, infoe  -inf" in out
    assert "infomec, infoc  undefined" in out


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
