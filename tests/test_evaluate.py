import json

import pytest

from disentangle import evaluate, train

FEW = [
    *("--mig.points", "500", "--factor_vae_score.train_points", "20", "--activeness.latents", "4"),
    *("--factor_vae_score.test_points", "10", "--factor_vae_score.variance_points", "100"),
]


@pytest.fixture
def run(request, tmp_path):
    options = request.getfixturevalue(request.param)
    assert train.main([*options, "--training.steps", "2"]) == 0
    return tmp_path / "run"


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_a_vae_is_scored_against_the_factors(run, capsys):
    assert evaluate.main([str(run), *FEW]) == 0
    report = json.loads((run / "scores.json").read_text())
    assert report["step"] == 2
    assert set(report["versions"]) == {"disentangle", "torch", "numpy", "scikit-learn"}
    scores = report["scores"]
    assert list(scores) == ["mig", "factor_vae_score", "activeness"]
    assert scores["mig"]["protocol"] == {"seed": 0, "points": 500, "bins": 20}
    assert scores["factor_vae_score"]["protocol"]["train_points"] == 20
    assert all(score["seconds"] > 0 for score in scores.values())
    assert len(scores["mig"]["details"]["mutual_information"]) == 10
    printed = capsys.readouterr().out
    for word in ("mig", "factor_vae_score", "codes, code 9", str(run / "scores.json")):
        assert word in printed


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
def test_scores_are_reproducible_and_depend_on_the_seed(run):
    reports = []
    for seed in ("3", "3", "4"):
        evaluate.main([str(run), *FEW, "--seed", seed])
        scores = json.loads((run / "scores.json").read_text())["scores"]
        reports.append({name: score["details"] for name, score in scores.items()})
    assert reports[0] == reports[1] != reports[2]


@pytest.mark.parametrize("run", ["tiny_gan"], indirect=True)
def test_a_gan_gets_the_activeness_of_every_axis(run, capsys):
    assert evaluate.main([str(run), *FEW]) == 0
    scores = json.loads((run / "scores.json").read_text())["scores"]
    assert list(scores) == ["activeness"]
    assert len(scores["activeness"]["details"]["per_axis"]) == 18
    assert "block 2, dimension 5" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["tiny_vae"], indirect=True)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bins", "3"], "unrecognized arguments: --bins 3; did you mean mig.bins?"),
        (["--mig.bins", "few"], "mig.bins: expected int, got few"),
        (["--mig.points", "0"], "mig.points must be positive, got 0"),
        (["--device", "abacus"], "--device 'abacus' cannot be used here"),
    ],
)
def test_bad_options(run, capsys, options, message):
    capsys.readouterr()
    with pytest.raises(SystemExit) as exited:
        evaluate.main([str(run), *options])
    assert exited.value.code == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1
    assert not (run / "scores.json").exists()


def test_folders_that_are_no_runs(tmp_path, capsys):
    for folder, message in ((tmp_path, "is not a run folder"), (tmp_path / "x", "there is no run")):
        with pytest.raises(SystemExit):
            evaluate.main([str(folder)])
        assert message in capsys.readouterr().err
