"""The exit code of ranks that were started by `stackgan --ranks` or launch/torchrun.sh, and who meets whom."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from distributed.harness import REPOSITORY
from distributed.tiny import TINY_FLAGS

from stackgan_dist import launcher
from stackgan_dist.errors import EXIT_PREEMPTED, EXIT_USER_ERROR

START_S = 240


@contextmanager
def _started(command: Sequence[str], folder: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """`command` in `folder` and in a session of its own, which is killed at the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHON": sys.executable, **variables}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _until(folder: Path, text: str) -> None:
    end = time.monotonic() + START_S
    while text not in (log := (folder / "log").read_text(errors="replace")):
        assert time.monotonic() < end, log
        time.sleep(0.05)


def _train(folder: Path, packed: Path, *arguments: str) -> list[str]:
    flags = [*TINY_FLAGS, "--data.url", str(packed), "--run.folder", "runs", "--run.name", "one", *arguments]
    return [sys.executable, "-m", "stackgan_dist", "--ranks", "2", "train", *flags]


def test_done_preempted_refused_and_lost_have_codes_of_their_own(packed: Path, tmp_path: Path) -> None:
    with _started(_train(tmp_path, packed, "--training.epochs", "100000"), tmp_path) as process:
        _until(tmp_path, "step 2/")
        process.send_signal(signal.SIGTERM)
        assert process.wait(START_S) == EXIT_PREEMPTED, (tmp_path / "log").read_text()
    assert (tmp_path / "runs" / "one" / "PREEMPTED").exists()

    with _started(_train(tmp_path, packed, "--training.epochs", "0"), tmp_path) as process:
        assert process.wait(START_S) == EXIT_USER_ERROR
    log = (tmp_path / "log").read_text()
    assert "--training.epochs is 0" in log
    assert "Traceback" not in log
    assert (tmp_path / "runs" / "one" / "PREEMPTED").exists(), "that start's marker does not speak for this one"

    with _started(_train(tmp_path, packed, "--training.epochs", "100000"), tmp_path) as process:
        _until(tmp_path, "resumed at step")
        _until(tmp_path, "step ")
        (rank, *_) = _children(process.pid)
        os.kill(rank, signal.SIGKILL)
        assert process.wait(START_S) == 1
    assert "SIGKILL" in (tmp_path / "log").read_text()


def test_a_finished_run_ends_with_zero_and_hangup_is_ignored_under_nohup(packed: Path, tmp_path: Path) -> None:
    command = ["nohup", *_train(tmp_path, packed, "--training.epochs", "40")]
    with _started(command, tmp_path) as process:
        _until(tmp_path, "step 2/")
        process.send_signal(signal.SIGHUP)
        assert process.wait(START_S) == 0, (tmp_path / "log").read_text()
    done = (tmp_path / "runs" / "one" / "DONE").read_bytes()

    with _started([*command[1:], "--training.learning-rate", "0.5"], tmp_path) as process:
        assert process.wait(START_S) == EXIT_USER_ERROR
    assert "another configuration" in (tmp_path / "log").read_text()
    assert (tmp_path / "runs" / "one" / "DONE").read_bytes() == done, "the run is done as before"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_single_process_saves_and_ends_with_its_code(packed: Path, tmp_path: Path, number: signal.Signals) -> None:
    flags = [*TINY_FLAGS, "--data.url", str(packed), "--run.folder", "runs", "--run.name", "one"]
    command = [sys.executable, "-m", "stackgan_dist.train", *flags, "--training.epochs", "100000"]
    with _started(command, tmp_path) as process:
        _until(tmp_path, "step 2/")
        process.send_signal(number)
        assert process.wait(START_S) == EXIT_PREEMPTED
    assert f"on {number.name}; checkpoint in" in (tmp_path / "log").read_text()


def test_ctrl_c_twice_ends_at_once(packed: Path, tmp_path: Path) -> None:
    """While a rank is in a step that takes long; nothing of it is left, neither torchrun nor ranks."""
    slow = "import time; from stackgan_dist.train import state; from stackgan_dist.cli.doors import command_main; "
    slow += "step = state.TrainingState.step; state.TrainingState.step = "
    slow += "lambda self, batch, at, epoch: (time.sleep(3 * at), step(self, batch, at, epoch))[1]; "
    slow += "command_main('train')()"
    flags = [*TINY_FLAGS, "--data.url", str(packed), "--run.folder", "runs", "--run.name", "one"]
    with _started([sys.executable, "-c", slow, *flags, "--training.epochs", "9"], tmp_path) as process:
        _until(tmp_path, "step 2/")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(START_S) == 128 + signal.SIGINT
        assert time.monotonic() - began < 6
    assert not (tmp_path / "runs" / "one" / "PREEMPTED").exists()


@pytest.mark.parametrize("words", [["--help"], ["--help-all"], ["--training.epochs", "x"], ["--no-such-flag"]])
def test_help_and_refusals_are_left_to_the_ranks(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started = []
    monkeypatch.setattr("torch.distributed.run.run", lambda options: started.append(options.training_script_args))
    monkeypatch.setattr(sys, "argv", ["launcher", "-m", "stackgan_dist.train", *words])
    with pytest.raises(SystemExit) as end:
        launcher.main()
    assert (end.value.code, started) == (0, [words])
    assert capsys.readouterr() == ("", "")


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(folder.name))
        except OSError:
            continue
    return sorted(found)


@pytest.mark.parametrize("nodes", ["1:2", "2"])
def test_two_experiments_on_one_host_do_not_meet(packed: Path, tmp_path: Path, nodes: str) -> None:
    """Each waits for its own second node, under an id and at a port of its own, and says so."""
    meetings = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        flags = [*TINY_FLAGS, "--data.url", str(packed), "--run.folder", "runs", "--run.name", name]
        script = ["bash", str(REPOSITORY / "launch/torchrun.sh"), "-m", "stackgan_dist.train", *flags]
        with _started(script, folder, NNODES=nodes, MASTER_ADDR="127.0.0.1", JOIN_TIMEOUT_S="2"):
            _until(folder, "launch: meeting")
        meetings.append(re.search(r"at 127.0.0.1:(\d+) as (\S+); waiting .* 2 s", (folder / "log").read_text()))
    first, second = meetings
    assert first
    assert second
    assert first.groups() != second.groups()
    assert first[2] != second[2]
