"""A VAE that learns nothing says so."""

import json

import pytest
import torch

from disentangle import evaluate, train
from disentangle.training.vae.code_watch import CodeWatch


def watch_lines(counts, *, codes=4, steps=100, every=10, restored=0):
    """What a watch says of counts of active codes, after it has taken up some of them."""
    said = []
    watch = CodeWatch(codes=codes, steps=steps, say=said.append)
    lines = [
        {"step": every * i, "active_units": count, "kl/0": 12.5, "kl/1": 1.5, "loss": 1.0}
        for i, count in enumerate(counts, start=1)
    ]
    watch.restore(lines[:restored])
    for line in lines[restored:]:
        watch.take(line)
    return said


def test_no_code_at_all_is_said_once_with_the_divergence():
    (said,) = watch_lines([0] * 9)
    assert said == (
        "no code is active at step 30: the posterior means hardly vary from image to image, "
        "with a divergence of 14 nats"
    )


@pytest.mark.parametrize(
    ("count", "codes", "said"),
    [
        (1, 3, ["only 1 of 3 codes is active at step 30"]),
        (4, 10, ["only 4 of 10 codes are active at step 30"]),
        (5, 10, []),
        (2, 3, []),
        (1, 1, []),
        (10, 10, []),
    ],
)
def test_fewer_than_half_are_few(count, codes, said):
    assert watch_lines([count] * 9, codes=codes) == said


def test_changes_are_said():
    assert watch_lines([0, 0, 0, 1, 1, 1, 3, 3, 3, 0, 0, 0]) == [
        "no code is active at step 30: the posterior means hardly vary from image to image, "
        "with a divergence of 14 nats",
        "only 1 of 4 codes is active at step 60",
        "3 of 4 codes are active at step 90",
        "no code is active at step 120: the posterior means hardly vary from image to image, "
        "with a divergence of 14 nats",
    ]


def test_single_lines_are_no_news():
    assert watch_lines([4, 1, 4, 0, 0, 4, 1, 1, 4, 4]) == []
    assert watch_lines([4, 1, 1, 2, 1, 1, 1, 2, 1, 1]) == ["only 1 of 4 codes is active at step 70"]


def test_lines_that_are_all_too_low_need_not_be_alike():
    assert watch_lines([0, 1, 0, 1, 0, 1, 0]) == ["only 1 of 4 codes is active at step 20"]
    assert watch_lines([0, 0, 0, 1, 3, 1, 3, 1]) == [
        "no code is active at step 30: the posterior means hardly vary from image to image, "
        "with a divergence of 14 nats",
        "only 1 of 4 codes is active at step 60",
    ]


def test_a_run_with_few_lines_is_judged_by_its_last():
    assert watch_lines([1, 1], steps=20) == ["only 1 of 4 codes is active at step 20"]
    assert watch_lines([1, 3], steps=20) == []


def test_the_first_tenth_of_the_steps_is_passed_over():
    assert watch_lines([0] * 9 + [4] * 20, steps=1000) == []
    (said,) = watch_lines([0] * 30, steps=1000)
    assert "at step 100:" in said


@pytest.mark.parametrize("restored", range(10))
def test_a_resumed_watch_goes_on_where_it_was(restored):
    counts = [4, 0, 0, 0, 0, 4, 4, 4, 4]
    said = watch_lines(counts)
    assert len(said) == 2
    later = [line for line in said if int(line.split("step ")[1].split(":")[0]) > 10 * restored]
    assert watch_lines(counts, restored=restored) == later


def test_lines_without_a_count_are_passed_over():
    said = []
    watch = CodeWatch(codes=4, steps=10, say=said.append)
    watch.restore([{"step": 1}, {"step": 2, "active_units": None}])
    for step in (3, 4, 5):
        watch.take({"step": step, "activeness/code 1": 0.1})
        watch.take({"step": step, "active_units": 0.0, "kl/0": None})
    assert len(said) == 1


@pytest.fixture
def asleep(tiny_vae, monkeypatch):
    """Options of a run whose codes are the same for every image, but far from 0."""
    infer = "disentangle.models.vae_encoders.PosteriorLayer.forward"
    constant = lambda self, h: (0 * h[:, :1] + torch.full((10,), 3.0), -torch.ones(len(h), 10))  # noqa: E731
    monkeypatch.setattr(infer, constant)
    return [*tiny_vae, "--orthogonality", "[]", "--training.log_every", "1"]


def test_a_run_that_learns_nothing_says_so_once(asleep, capsys):
    assert train.main([*asleep, "--training.steps", "4"]) == 0
    error = capsys.readouterr().err
    assert error.count("no code is active at step 3") == 1
    assert train.main([*asleep, "--training.steps", "8", "--resume"]) == 0
    assert "no code is active" not in capsys.readouterr().err


def test_a_batch_of_one_image_says_nothing(asleep, capsys):
    assert train.main([*asleep, "--training.batch_size", "1"]) == 0
    assert "active at step" not in capsys.readouterr().err


def test_evaluation_says_how_many_codes_are_active(tiny_vae, asleep, tmp_path, capsys):
    assert train.main([*asleep, "--training.steps", "3"]) == 0
    capsys.readouterr()
    few = ["--metrics", "mig", "--points", "50", "--test_points", "5"]
    assert evaluate.main([str(tmp_path / "run"), *few]) == 0
    assert (
        "\nactive codes: none of 10 (variance of the posterior mean above 0.01)\n"
        in capsys.readouterr().out
    )
    assert json.loads((tmp_path / "run/scores.json").read_text())["scores"]["mig"]["score"] == 0
