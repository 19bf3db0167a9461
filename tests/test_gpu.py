"""The checks for a GPU, at toy size on a CPU: they pass, and each kind of them can fail."""

import importlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import Executor, Future
from typing import get_args

import pytest
import torch

from disentangle.config.choices import TASKS
from disentangle.evaluation.registry import METRICS
from disentangle.models.layers import DecorrelatedBatchNorm2d
from disentangle.orthogonality import Technique
from disentangle.training import resume
from tests.gpu import __main__ as command
from tests.gpu import commands, harness, linear_algebra, metrics, report, sessions, techniques
from tests.gpu.harness import Figure, MismatchError, Result, Setting, SkippedError, run_check
from tests.helpers.waiting import refusing_to_wait

# the function of the same name hides the module
ATTACH = importlib.import_module("disentangle.orthogonality.attach")

QUICK = Setting(torch.device("cpu"), quick=True)
SLOW = ("techniques", "speed", "precision")  # with the imports, more than ten seconds


class InThisProcess(Executor):
    """Does at once what it is given: signals are handled in the main thread only."""

    def __init__(self, workers):
        pass

    def submit(self, function, *arguments):
        future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def in_this_process(monkeypatch):
    """Commands are functions of this process, which spares the imports of twelve others."""

    def run(name, arguments, setting):
        sessions.forget_runs()
        status = importlib.import_module(f"disentangle.{name}").main(arguments)
        if status:
            raise MismatchError(f"expected status 0, got {status}")

    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(commands, "run_command", run)
    monkeypatch.setattr(commands, "ThreadPoolExecutor", InThisProcess)


def outcomes_of(results):
    return {result.outcome for result in results}


def make_check(part, name):
    """The result of one check of a part; its first figure, if it has figures."""
    with harness.ways_of_a_gpu():
        checks = dict(importlib.import_module(f"tests.gpu.{part}").checks(QUICK))
        return next(run_check(part, name, checks[name], QUICK))


# What the parts find


@pytest.mark.usefixtures("in_this_process")
@pytest.mark.parametrize(
    "part", [pytest.param(p, marks=pytest.mark.slow if p in SLOW else ()) for p in command.LIMITS]
)
# The compiler accesses it as it traces a call of the discriminator on made images.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_a_part_passes_on_this_cpu(part):
    results = list(harness.run_part(part, QUICK))
    assert [result for result in results if result.outcome == "failed"] == []
    assert outcomes_of(results) & {"ok", "figure"}
    names = [result.name for result in results]
    assert len(set(names)) == len(names)
    skipped = [result.detail for result in results if result.outcome == "skipped"]
    assert set(skipped) <= {"capturable optimizers need CUDA", "a classifier has no latents"}


def test_nothing_is_left_out():
    """A new technique, task or metric needs an entry."""
    combinations = [technique.name.split(",") for technique in techniques.TECHNIQUES]
    assert {name for names in combinations for name in names} == set(get_args(Technique))
    assert sessions.TASKS.keys() == TASKS.keys()
    assert METRICS.keys() <= {*metrics.OF_CODES, *metrics.OF_GENERATORS, *metrics.FITTED}


def test_all_parts_together_stay_within_eight_minutes():
    assert sum(command.LIMITS.values()) <= 470


# A wrong implementation is found


def slightly_wrong(function):
    return lambda *arguments, **options: 1.001 * function(*arguments, **options)


def waits(function):
    def wait(gradients, **options):
        gradients[0].sum().item()
        return function(gradients, **options)

    return wait


@pytest.mark.parametrize(
    ("part", "name", "where", "attribute", "fault", "complaint"),
    [
        (
            "linear_algebra",
            "polar factor 6 × 64, torch.float32",
            linear_algebra,
            "polar_factor",
            slightly_wrong,
            "value, condition 1e+00: expected a relative error of at most 1e-06, got 1.0e-03",
        ),
        (
            "techniques",
            "nog with Adam, fused",
            ATTACH,
            "nearest_orthogonal_gradients",
            lambda function: lambda gradients, **options: gradients,
            "movement of the weights: expected a relative error of at most 3e-04",
        ),
        (
            "techniques",
            "nou with AdamW, fused",
            ATTACH,
            "kept_share",
            lambda function: lambda optimizer, group: 1.0,
            "movement of the weights: expected a relative error of at most 3e-04",
        ),
        (
            "techniques",
            "olr with SGD, fused",
            ATTACH,
            "optimal_learning_rate",
            slightly_wrong,
            "movement of the weights: expected a relative error of at most 3e-04",
        ),
        (
            "techniques",
            "ol with AdamW, fused",
            techniques,
            "orthogonal_loss",
            lambda function: lambda matrices: 1.1 * function(matrices),
            "movement of the weights: expected a relative error of at most 3e-04",
        ),
        (
            "techniques",
            "nog with SGD, fused does not wait",
            ATTACH,
            "nearest_orthogonal_gradients",
            waits,
            "RuntimeError: values of tensors were waited for 1 times",
        ),
        (
            "techniques",
            "a run of the task vae with [nog] does not wait",
            ATTACH,
            "nearest_orthogonal_gradients",
            waits,
            "RuntimeError: values of tensors were waited for",
        ),
        (
            "layers",
            "decorrelated batch norm, torch.float32",
            DecorrelatedBatchNorm2d,
            "_scale",
            lambda function: lambda layer, mean, W: function(layer, mean, 1.001 * W),
            "value, channels first: expected a relative error of at most 1e-04",
        ),
        (
            "metrics",
            "fit_encoder, fitted on the device",
            metrics,
            "draw_stripes",
            lambda function: lambda z, device: 0 * function(z, device),
            "expected a score above 0.8",
        ),
        (
            "precision",
            "vae in float16, resumed",
            resume,
            "load_checkpoint",
            lambda function: lambda accelerator, checkpoint: None,
            "expected the scaler {",
        ),
        (
            "speed",
            "polar factors",
            torch,
            "randn",
            lambda function: None,
            "TypeError: 'NoneType' object is not callable (tests/gpu/speed.py:",
        ),
    ],
)
def test_a_fault_is_found(monkeypatch, part, name, where, attribute, fault, complaint):
    importlib.import_module(f"tests.gpu.{part}")
    monkeypatch.setattr(where, attribute, fault(getattr(where, attribute)))
    result = make_check(part, name)
    assert result.outcome == "failed"
    assert complaint in result.detail


def test_a_metric_that_reads_tensors_wrong_is_found(monkeypatch):
    def wrong(codes, factors):
        spoilt = codes + 1 * isinstance(codes, torch.Tensor) * codes[:, :1] ** 2
        return right(spoilt, factors)

    right = metrics.mig
    monkeypatch.setattr(metrics, "mig", wrong)
    result = make_check("metrics", "mig of tensors on the device")
    assert result.outcome == "failed"
    assert "score: expected a relative error of at most 1e-12" in result.detail


@pytest.mark.usefixtures("in_this_process")
def test_a_resumption_without_the_state_of_the_optimizer_is_found(monkeypatch, tmp_path):
    def forget(accelerator, checkpoint):
        load(accelerator, checkpoint)
        for optimizer in accelerator._optimizers:
            for state in optimizer.state.values():
                for value in state.values():
                    value.zero_()

    load = resume.load_checkpoint
    monkeypatch.setattr(resume, "load_checkpoint", forget)
    chain = commands.Chain("vae", QUICK, tmp_path / "vae")
    chain.train()
    with pytest.raises(
        MismatchError, match=r"expected the same last step up to 0\.1, got an error"
    ):
        chain.resume()


@pytest.mark.usefixtures("in_this_process")
def test_a_command_that_fails_is_named_and_the_rest_of_its_chain_skipped(monkeypatch):
    class Broken(commands.Chain):
        def train(self):
            raise MismatchError("expected status 0, got 1: out of luck")

    monkeypatch.setattr(commands, "Chain", Broken)
    results = list(harness.run_part("commands", QUICK))
    assert [result.outcome for result in results] == 3 * ["failed", *3 * ["skipped"]]
    assert results[0].detail == "expected status 0, got 1: out of luck"
    assert results[3].detail == "a command before it failed"


def test_commands_are_run_in_processes_of_their_own(capsys):
    commands.run_command("--version", [], QUICK)
    assert capsys.readouterr().out.startswith("disentangle ")
    with pytest.raises(MismatchError, match=r"expected status 0, got 2: .* no command 'tran'"):
        commands.run_command("tran", [], QUICK)


# What becomes of a check


@pytest.mark.parametrize(
    ("error", "outcome", "detail"),
    [
        (SkippedError("no such thing here"), "skipped", "no such thing here"),
        (MismatchError("expected 1, got 2"), "failed", "expected 1, got 2"),
        (RuntimeError("CUDA error:\ndevice-side assert"), "failed", "CUDA error: device-side"),
    ],
)
def test_an_exception_is_an_outcome(error, outcome, detail):
    def check():
        raise error

    (result,) = run_check("part", "check", check, QUICK)
    assert result.outcome == outcome
    assert detail in result.detail


def test_figures_before_an_exception_are_kept():
    def check():
        yield Figure("first", [1.0], "ms")
        raise RuntimeError("out of luck")

    assert [result.outcome for result in run_check("part", "check", check, QUICK)] == [
        "figure",
        "failed",
    ]


def test_figures_are_summed_up_and_judged():
    values = [4.0, 1.0, 3.0, 2.0, 5.0]
    result = harness.summarise("part", Figure("f", values, "ms", at_least=3), judged=True)
    assert (result.median, result.quartiles, result.count) == (3.0, (2.0, 4.0), 5)
    assert result.met
    assert report.line_of(result) == "  figure  f: 3 ms (2 to 4), target at least 3: met"
    worse = harness.summarise("part", Figure("f", values, "ms", at_most=2.9), judged=True)
    assert worse.met is False
    assert "target at most 2.9: missed" in report.line_of(worse)
    toy = harness.summarise("part", Figure("f", [7.0], "ms", at_least=8), judged=False)
    assert (toy.median, toy.quartiles, toy.met) == (7.0, (7.0, 7.0), None)
    assert report.line_of(toy) == "  figure  f: 7 ms"


def test_relative_errors():
    expected = torch.tensor([3.0, 4.0, torch.inf, torch.nan])
    assert harness.relative_error(expected, expected) == 0
    assert harness.relative_error(torch.tensor([3.0, 4.5]), expected[:2]) == pytest.approx(0.1)
    assert harness.relative_error(torch.tensor([0.0, 0.5]), torch.zeros(2)) == 0.5
    for i, other in ((0, torch.nan), (2, 1.0), (2, -torch.inf), (2, torch.nan), (3, torch.inf)):
        got = expected.clone()
        got[i] = other
        assert harness.relative_error(got, expected) == torch.inf
    with pytest.raises(MismatchError, match=r"expected shape \(4,\), got \(2,\)"):
        harness.relative_error(expected[:2], expected)


def test_waiting_is_refused():
    with pytest.raises(RuntimeError, match="waited for 1 times"), refusing_to_wait(QUICK.device):
        torch.ones(()).item()
    with refusing_to_wait(QUICK.device):
        torch.ones(3).sum()


# The command


def run_main(monkeypatch, tmp_path, script, *arguments, limit=60):
    """Exit status and results of a run whose part is a Python script."""
    monkeypatch.setattr(command, "command_of", lambda part, report: [sys.executable, "-c", script])
    monkeypatch.setattr(command, "CPU_FACTOR", 1)
    monkeypatch.setitem(command.LIMITS, "layers", limit)
    given = ["--device", "cpu", "--quick", "--part", "layers", "--output", str(tmp_path)]
    status = command.main([*given, *arguments])
    content = json.loads((tmp_path / "results.json").read_text())
    return status, [Result(**result) for result in content["results"]]


def printing(*results):
    """A script that prints results as a worker does."""
    lines = [json.dumps(result.__dict__) for result in results]
    return f"for line in {lines!r}: print(line, flush=True)\n"


OK, FAILED = Result("layers", "good", "ok"), Result("layers", "bad", "failed", "expected 1, got 2")


def test_the_exit_status_tells_of_failures(monkeypatch, tmp_path, capsys):
    assert run_main(monkeypatch, tmp_path, printing(OK))[0] == 0
    assert "1 ok, 0 failed, 0 skipped, 0 figures" in capsys.readouterr().out
    status, results = run_main(monkeypatch, tmp_path, printing(OK, FAILED))
    assert status == 1
    assert results == [OK, FAILED]
    printed = capsys.readouterr().out
    assert "  FAILED  bad: expected 1, got 2" in printed
    assert "1 ok, 1 failed" in printed
    assert "| bad | FAILED | expected 1, got 2 |" in (tmp_path / "results.md").read_text()


def test_a_part_that_crashes_has_failed(monkeypatch, tmp_path):
    crash = "import os, sys; sys.stderr.write('device lost\\n'); sys.stderr.flush(); os._exit(3)"
    status, results = run_main(monkeypatch, tmp_path, printing(OK) + crash)
    assert status == 1
    assert [result.outcome for result in results] == ["ok", "failed"]
    assert results[1].detail == "ended with status 3: device lost"


def test_a_part_that_overruns_is_cut_off_with_what_it_started(monkeypatch, tmp_path):
    pid_file = tmp_path / "pid"
    hang = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\n"
        f"{printing(OK)}time.sleep(600)\n"
    )
    begin = time.monotonic()
    status, results = run_main(monkeypatch, tmp_path, hang, limit=5)
    assert time.monotonic() - begin < 60
    assert status == 1
    assert [result.outcome for result in results] == ["ok", "failed"]
    assert results[1].detail == "cut off after 5 s"
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid_file.read_text()}") and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_time_that_a_part_leaves_over_goes_to_the_next(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(command.LIMITS, "metrics", 100)
    run_main(monkeypatch, tmp_path, printing(OK), "--part", "metrics")
    printed = capsys.readouterr().out
    assert "layers, 60 s at most" in printed
    assert "metrics, 160 s at most" in printed or "metrics, 159 s at most" in printed


def test_without_a_gpu_it_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(["--output", str(tmp_path)]) == 2
    assert capsys.readouterr().out.startswith("no GPU: ")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--device", "cpu"], "--device cpu takes hours at full size: add --quick"),
        (["--part", "layer"], "invalid choice: 'layer'"),
        (["--device", "cpu", "--quick", "--output", __file__], "File exists"),
    ],
)
def test_bad_options(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(arguments)
    assert stopped.value.code == 2
    assert complaint in capsys.readouterr().err


def test_the_whole_command_on_one_part(tmp_path):
    """As a user runs it: the part in a process of its own."""
    arguments = ["--device", "cpu", "--quick", "--part", "linear_algebra"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu", *arguments, "--output", str(tmp_path)],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["facts"]["torch"] == torch.__version__.partition("+")[0]
    assert content["facts"]["size"] == "toy"
    assert {result["outcome"] for result in content["results"]} == {"ok"}
    for result in content["results"]:
        assert f"  ok      {result['name']}: " in done.stdout
    assert f"{len(content['results'])} ok, 0 failed" in done.stdout
    assert "| check | outcome | |" in (tmp_path / "results.md").read_text()
