"""Runs that are killed and gone on with, in children of this process.

A script, since forking is safe only where nothing else has started threads:
`test_killed_runs.py` runs `python killed_runs.py SCENARIO FOLDER` and looks at the exit status.
Forking spares each run the imports.
"""

import json
import os
import random
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from disentangle.runs.checkpoints import find_checkpoint, read_step
from disentangle.train import main as train

KILLS = 20
COMMON = "--training.batch_size 8 --training.log_every 2 --training.checkpoint_every 3"
RUNS = {
    "gan": """
        --task gan --data.name sprites --model.name eigengan --model.image_size 32
        --model.image_channels 1 --model.noise_dim 8 --model.base_channels 4
        --discriminator.base_channels 4 --objective.r1_every 2
        --objective.regulariser variation_predictability --orthogonality '[nog, olr, ol]'
        --optimizer.schedule cosine --training.ema_half_life 100
        --training.activeness_every 10 --training.sample_every 7
    """,
    "vae": """
        --task vae --data.name sprites --model.name subspace_vae --model.image_size 32
        --model.base_channels 4 --model.hidden_dim 32
        --objective.kind factor --orthogonality '[nog, ow]'
    """,
    "classification": """
        --task classification --data.name digits --model.name resnet --model.depth 10
        --model.base_channels 4 --model.image_size 8 --model.image_channels 1
        --model.meta_layer decorrelated_batch_norm --orthogonality '[nog, olr]'
        --objective.mixup 0.2 --objective.validate_every 5
        --optimizer.kind sgd --optimizer.lr 0.05 --optimizer.warmup 5
        --training.crop_padding 1 --training.workers 2
    """,
}


def start(arguments: list[str], prepare: Callable[[], object] = lambda: None) -> int:
    """Trains in a child that leads a process group of its own; returns its number."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    status = 70
    try:
        with open("train.log", "a") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        prepare()
        status = train(arguments)
    except SystemExit as stop:
        status = stop.code
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int) -> int:
    """The exit status of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def run_whole(arguments: list[str], *, expected: int = 0) -> None:
    status = wait(start(arguments))
    assert status == expected, f"{arguments[-3:]}: status {status}: {last_line()}"


def last_line() -> str:
    return Path("train.log").read_text().rstrip().rpartition("\n")[2]


def options(task: str, output: str, steps: int) -> list[str]:
    return [*shlex.split(RUNS[task] + COMMON), "--output", output, "--training.steps", str(steps)]


def resuming(arguments: list[str]) -> list[str]:
    """How a run is gone on with that may have been killed before its first checkpoint."""
    folder = Path(arguments[arguments.index("--output") + 1]) / "checkpoints"
    begun = any(not entry.name.startswith(".") for entry in folder.glob("*"))
    return [*arguments, "--resume"] if begun else [*arguments, "--overwrite"]


def processor_seconds(pid: int) -> float:
    """What a process has computed so far; its wall-clock time depends on other load."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def kill_after(pid: int, seconds: float, begun: Callable[[], bool] = lambda: True) -> bool:
    """Kills a child once it has begun with something and computed so long since then.

    Whether it was still running.
    """
    since = None
    while not has_ended(pid):
        if since is None and begun():
            since = processor_seconds(pid)
        if since is not None and processor_seconds(pid) - since >= seconds:
            break
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return wait(pid) == -signal.SIGKILL


def has_logged(run: str, count: int) -> Callable[[], bool]:
    """Tells whether the run in a folder, started after this call, has added lines to its log."""
    log = Path(run, "metrics.jsonl")
    before, base = log.stat().st_ino if log.exists() else None, None

    def tell() -> bool:
        nonlocal base
        if count == 0:
            return True
        if not log.exists() or log.stat().st_ino == before:
            return False  # it has not yet dropped the lines that it will make again
        lines = log.read_text().count("\n")
        base = lines if base is None else base
        return lines >= base + count

    return tell


def group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def check_nothing_is_left(groups: list[int]) -> None:
    """Workers that load data must end, within seconds, with the runs they work for."""
    deadline = time.monotonic() + 30
    while left := [group for group in groups if not group_is_empty(group)]:
        assert time.monotonic() < deadline, f"processes of the groups {left} go on"
        time.sleep(0.05)


def compare(run: str, other: str) -> None:
    """Whether two runs ended bit for bit alike."""
    names = [sorted(str(f.relative_to(r)) for f in Path(r).rglob("*.*")) for r in (run, other)]
    kept = [[n for n in found if not n.startswith("logs")] for found in names]
    assert kept[0] == kept[1], f"files differ: {set(kept[0]) ^ set(kept[1])}"
    for name in kept[0]:
        first, second = Path(run, name), Path(other, name)
        if name.endswith(".jsonl"):
            assert read_log(first) == read_log(second), name
        elif name.endswith(".bin"):
            values = [torch.load(file, weights_only=True) for file in (first, second)]
            assert repr(flatten(values[0])) == repr(flatten(values[1])), name
        elif name.endswith((".safetensors", ".png", "training.json", "model/config.json")):
            assert first.read_bytes() == second.read_bytes(), name


def flatten(value: object) -> object:
    """A state with its tensors as bytes."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: flatten(item) for key, item in value.items()}
    return [flatten(item) for item in value] if isinstance(value, list | tuple) else value


def read_log(file: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def killed_at_random(task: str, steps: int = 90) -> None:
    """Killed twenty times in a row at a random moment, a run ends as if it never had been."""
    whole, killed = options(task, "whole", steps), options(task, "killed", steps)
    run_whole(whole)
    seconds = os.times().children_user + os.times().children_system
    moments, groups = random.Random(task), []
    for number in range(KILLS):
        lines = moments.choice([0, 1, 2])  # no more, or it would be over before the last kill
        begun = has_logged("killed", lines)
        pid = start(resuming(killed))
        assert kill_after(pid, moments.uniform(0, seconds / 15), begun), f"{number} kills only"
        groups.append(pid)
    run_whole(resuming(killed))
    compare("whole", "killed")
    check_nothing_is_left(groups)
    print(f"{task}: killed {KILLS} times, {seconds:.1f} s uninterrupted")


def join(rank: int, port: int) -> None:
    """Makes this process one of two."""
    os.environ |= {
        "ACCELERATE_USE_CPU": "true",
        "WORLD_SIZE": "2",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def start_both(arguments: list[str]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [start(arguments, partial(join, rank, port)) for rank in (0, 1)]


def both_killed_at_random(task: str, steps: int = 40) -> None:
    """The same of a run on two processes."""
    whole, killed = options(task, "whole", steps), options(task, "killed", steps)
    assert [wait(pid) for pid in start_both(whole)] == [0, 0], last_line()
    seconds = (os.times().children_user + os.times().children_system) / 2
    moments = random.Random(task)
    for _ in range(5):
        first, second = start_both(resuming(killed))
        kill_after(first, moments.uniform(0, seconds / 2))
        os.kill(second, signal.SIGKILL)
        wait(second)
    final = [wait(pid) for pid in start_both(resuming(killed))]
    assert final == [0, 0], f"{final}: {last_line()}"
    compare("whole", "killed")


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for_checkpoint(run: str, pid: int) -> None:
    while not any(Path(run, "checkpoints").glob("step-*")):
        assert not has_ended(pid), f"status {wait(pid)}: {last_line()}"
        time.sleep(0.02)


def check_ends(pids: list[int], *, seconds: float) -> None:
    """Each run must end with status 1 and one line, which names the checkpoint."""
    deadline = time.monotonic() + seconds
    while not all(map(has_ended, pids)):
        assert time.monotonic() < deadline, f"still there after {seconds} s: {last_line()}"
        time.sleep(0.02)
    statuses = [wait(pid) for pid in pids]
    assert statuses == [1] * len(pids), f"{statuses}: {last_line()}"
    check_nothing_is_left(pids)
    printed = Path("train.log").read_text()
    assert "Traceback" not in printed, printed
    assert printed.count("disentangle train: error: ") == len(pids), printed
    assert printed.count("the last good checkpoint ") == len(pids), printed


def start_afresh(arguments: list[str], processes: int = 1) -> list[int]:
    """Start a run, or one on two processes, and wait for its first checkpoint."""
    for folder in ("run", "elsewhere"):
        shutil.rmtree(folder, ignore_errors=True)
    Path("train.log").unlink(missing_ok=True)
    pids = [start(arguments)] if processes == 1 else start_both(arguments)
    wait_for_checkpoint("run", pids[0])
    return pids


def losing_a_worker(task: str, workers: int, trials: int = 1, processes: int = 1) -> None:
    """A run that loses one of its workers ends within seconds and leaves no process."""
    moments = random.Random(f"{task} {workers} {processes}")
    for _ in range(trials):
        arguments = [*options(task, "run", 100_000), "--training.workers", str(workers)]
        pids = start_afresh(arguments, processes)
        time.sleep(moments.uniform(0, 0.5))
        # A validation has workers of its own, which are younger and may just have done their work.
        ours = children_of(moments.choice(pids))[:workers]
        os.kill(moments.choice(ours), signal.SIGKILL)
        check_ends(pids, seconds=10)
        assert "a process that decodes images ended" in Path("train.log").read_text()


def losing_its_folder(how: str) -> None:
    """A run whose folder is renamed or deleted says so and names the checkpoint that it had."""
    (pid,) = start_afresh(options("vae", "run", 100_000))
    if how == "renamed":
        os.rename("run", "elsewhere")
    else:
        shutil.rmtree("run", ignore_errors=True)  # it may just be writing there
    check_ends([pid], seconds=30)


WRITES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")


def die_at_write(number: int) -> None:
    """Kills this process when it is about to change the disk for the `number`-th time."""
    count = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        if event not in WRITES:
            return
        if event == "open":
            path, _, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR) if isinstance(flags, int) else True
            if not writes or str(path) == os.devnull:
                return
        count += 1
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def killed_at_each_write(stride: int = 1) -> None:
    """Killed at any change to the disk, a run still has its last whole checkpoint."""
    run_whole(options("vae", "begun", 3))
    shutil.copytree("begun", "whole")
    run_whole([*options("vae", "whole", 9), "--resume"])
    number, died = 1, True
    while died:
        shutil.rmtree("killed", ignore_errors=True)
        shutil.copytree("begun", "killed")
        arguments = [*options("vae", "killed", 9), "--resume"]
        status = wait(start(arguments, partial(die_at_write, number)))
        died = status == -signal.SIGKILL
        assert died or status == 0, f"write {number}: status {status}: {last_line()}"
        reached = read_step(find_checkpoint(Path("killed/checkpoints"), "latest"))
        assert reached >= 3, f"write {number}: the checkpoint is of step {reached}"
        if died and reached < 9:
            run_whole(arguments)
        if reached < 9 or not died:
            compare("whole", "killed")
        number += stride
    print(f"killed at {number // stride} of {number} writes")


def limit_files(size: int) -> None:
    """Lets this process write no file beyond a size, as a quota does."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def largest_file(folder: str) -> int:
    return max(file.stat().st_size for file in Path(folder).rglob("*.bin"))


def full_disk() -> None:
    """Where a checkpoint cannot be written, the one before stays and the run says so."""
    run_whole(options("vae", "run", 3))
    arguments = [*options("vae", "run", 9), "--resume"]
    limit = largest_file("run/checkpoints/step-3") - 1000  # a few bytes depend on the step
    check_refusal(
        wait(start(arguments, partial(limit_files, limit))), "cannot be written to, with "
    )
    run_whole(arguments)  # once there is room
    assert read_step(find_checkpoint(Path("run/checkpoints"), "latest")) == 9


def small_disk() -> None:
    """The same on a disk that is full, and on one that may not be written to; needs root."""
    run_whole(options("vae", "run", 3))
    Path("disk").mkdir()
    size = sum(file.stat().st_size for file in Path("run").rglob("*")) + 50_000
    mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", "disk")
    try:
        shutil.copytree("run", "disk/run")
        arguments = [*options("vae", "disk/run", 9), "--resume"]
        check_refusal(wait(start(arguments)), "No space left on device")
        mount("-o", "remount,ro", "disk")
        check_refusal(wait(start(arguments)), "Read-only file system")
    finally:
        subprocess.run(["umount", "--lazy", "disk"], check=True)


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def check_refusal(status: int, reason: str) -> None:
    line = last_line()
    assert status == 1, f"status {status}: {line}"
    assert line.startswith("disentangle train: error: "), line
    assert reason in line, line
    assert "the last good checkpoint is step-3" in line, line


if __name__ == "__main__":
    scenario, folder = sys.argv[1:3]
    os.chdir(folder)
    globals()[scenario](*(int(a) if a.isdigit() else a for a in sys.argv[3:]))
