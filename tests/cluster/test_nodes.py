"""launch/nodes.sh: several torchruns on one machine, without root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from hosts import wait_for_text

from stackgan_dist.errors import EXIT_PREEMPTED

START_S = 240.0


@pytest.mark.parametrize("nodes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_nodes_train_together_and_stop_together(tiny: list[str], tmp_path: Path, nodes: int) -> None:
    """It passes on the signal, and its exit code is theirs; paths count from where it is called."""
    arguments = [
        "bash",
        str(ROOT / "launch/nodes.sh"),
        str(nodes),
        "-m",
        "stackgan_dist.train",
        *tiny,
        "--training.epochs",
        "10000",
        "--run.folder",
        ".",
    ]
    environment = {
        **os.environ,
        "PYTHON": sys.executable,
        "PYTHONUNBUFFERED": "1",
        "STACKGAN_TEST_NODES": str(tmp_path),
    }
    metrics = tmp_path / "stage1" / "metrics.jsonl"
    with (tmp_path / "out").open("wb") as output:
        process = subprocess.Popen(arguments, cwd=tmp_path, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        wait_for_text(metrics, "\n", START_S, occurrences=3)
        process.send_signal(signal.SIGUSR1)
        code = process.wait(timeout=60)
        left = _processes(tmp_path)
    finally:
        process.kill()
        for straggler in _processes(tmp_path):
            os.kill(straggler, signal.SIGKILL)
    printed = (tmp_path / "out").read_text()
    assert not left, printed
    assert code == EXIT_PREEMPTED, printed
    assert f"{nodes} rank(s)" in printed
    assert "[node 1] torchrun is process" in printed
    rows = [round(json.loads(line)["step"]) for line in metrics.read_text().splitlines()]
    assert (tmp_path / "stage1" / "PREEMPTED").read_text().startswith(f"step {rows[-1]} of ")
    assert rows == list(range(1, len(rows) + 1))


def _processes(mark: Path) -> list[int]:
    """Ids of all that the launch has started and that is left."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"STACKGAN_TEST_NODES={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # it ended meanwhile
            continue
    return found
