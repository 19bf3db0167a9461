import json
from math import inf, nan

import numpy as np
import pytest

from disentangle.runs.scores_file import (
    ALONG_SEFA,
    FIT,
    FITTED,
    Score,
    ScoresFile,
    metric_of,
    read_scores,
    write_scores,
)


def make_score(score=0.5, **fields):
    return Score(score=score, **({"protocol": {"points": 20}, "details": {}} | fields))


def test_infinity_and_undefined_numbers_are_told_apart(tmp_path):
    file = tmp_path / "scores.json"
    details = {"matrix": np.array([[-inf, nan], [0.5, inf]]), "name": "x"}
    scores = {"a": make_score(inf, details=details), "b": make_score(nan)}
    write_scores(file, ScoresFile(1, scores=scores))
    assert '"score": "Infinity"' in file.read_text()
    found = read_scores(file).scores
    assert found["a"].score == inf
    assert found["a"].details == {"matrix": [[-inf, None], [0.5, inf]], "name": "x"}
    assert found["a"].matrix("matrix") == [[-inf, None], [0.5, inf]]
    assert found["b"].score is None
    text = file.read_text()
    write_scores(file, read_scores(file).at_step(1).updated({}))
    assert file.read_text() == text


def test_everything_is_kept(tmp_path):
    file = tmp_path / "scores.json"
    full = make_score(seed=0, seconds=0.0, versions={"torch": "2"}, too_large={"a": [2, 3]})
    content = ScoresFile(None, {"file": "a.npz", "sha256": "0"}, {"mig": full, "sap": make_score()})
    write_scores(file, content)
    assert read_scores(file) == content
    written = json.loads(file.read_text())
    assert list(written) == ["step", "codes", "scores"]
    assert written["scores"]["mig"].keys() == vars(full).keys()
    assert written["scores"]["sap"] == {"score": 0.5, "protocol": {"points": 20}, "details": {}}


def test_scores_of_another_step_go():
    scores = ScoresFile(5, scores={"mig": make_score()})
    assert scores.at_step(5) == scores
    assert scores.at_step(6) == ScoresFile(6)


def test_scores_by_an_encoder_go_when_it_is_fitted_in_another_way():
    names = ("mig", f"mig{FITTED}", f"activeness{ALONG_SEFA}", FIT)
    old = ScoresFile(1, scores={name: make_score(seed=0) for name in names})
    assert set(old.updated({FIT: make_score(0.9, seed=0)}).scores) == set(names)
    for changed in (make_score(seed=1), make_score(seed=0, protocol={"points": 30})):
        assert f"mig{FITTED}" not in old.updated({FIT: changed}).scores
        assert "mig" in old.updated({FIT: changed}).scores
    assert set(map(metric_of, names)) == {"mig", "activeness", FIT}


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{",
        '{"scores": {}}',
        '{"step": 1}',
        '{"step": true, "scores": {}}',
        '{"step": 1, "scores": {}, "more": 1}',
        '{"step": 1, "codes": {"file": 1}, "scores": {}}',
        '{"step": 1, "scores": {"mig": {"score": NaN, "protocol": {}, "details": {}}}}',
        '{"step": 1, "scores": {"mig": {"score": true, "protocol": {}, "details": {}}}}',
        '{"step": 1, "scores": {"mig": {"score": 1, "protocol": [], "details": {}}}}',
        '{"step": 1, "scores": {"mig": {"score": 1, "protocol": {}, "details": {}, "more": 1}}}',
        '{"step": 1, "scores": {"mig": {"score": 1, "protocol": {}}}}',
    ],
)
def test_other_files(tmp_path, content):
    file = tmp_path / "scores.json"
    file.write_text(content)
    with pytest.raises(ValueError, match=r"is not what `disentangle evaluate` writes: remove it"):
        read_scores(file)


def test_details_of_another_kind():
    details = {"ragged": [[1.0], [1.0, 2.0]], "empty": [], "text": [["a"]], "truth": [[True]]}
    score = make_score(details=details | {"std": None, "rank": 2})
    assert (score.number("std"), score.number("rank"), score.number("none")) == (None, 2, None)
    assert score.matrix("none") is None
    for name in details:
        with pytest.raises(ValueError, match=f"{name} in scores.json must be a number, got"):
            score.number(name)
        with pytest.raises(ValueError, match=f"{name} in scores.json must be a matrix, got"):
            score.matrix(name)
