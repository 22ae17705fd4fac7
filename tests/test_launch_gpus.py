"""launch/ on machines with as many GPUs as its `nvidia-smi` says, and on the first of several nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("gpus", "variables", "seen"),
    [
        (0, {}, ["", ""]),
        (1, {}, ["", ""]),
        (2, {}, ["0", "1"]),
        (5, {}, ["0,1", "2,3"]),
        (5, {"NPROC_PER_NODE": "1"}, ["0", "1"]),
        (3, {"NPROC_PER_NODE": "2"}, ["", ""]),
        (0, {"CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b,7"}, ["GPU-a", "GPU-b"]),
        (4, {"CUDA_VISIBLE_DEVICES": ""}, ["", ""]),
    ],
)
def test_nodes_of_one_machine_share_no_gpu(
    tmp_path: Path, gpus: int, variables: dict[str, str], seen: list[str]
) -> None:
    lines = "\n".join(f"GPU {number}: NVIDIA H100 (UUID: GPU-{number})" for number in range(gpus))
    _script(tmp_path / "nvidia-smi", f"cat <<'END'\n{lines}\nEND")
    # What would be the interpreter says which GPUs it has, and how many ranks it was asked for.
    _script(tmp_path / "python", 'echo "${NODE_RANK:-} [$CUDA_VISIBLE_DEVICES] $*"')
    bare = {name: value for name, value in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "NPROC_PER_NODE")}
    fakes = {"PATH": f"{tmp_path}:{bare['PATH']}", "PYTHON": str(tmp_path / "python"), "MASTER_PORT": "1"}
    ended = subprocess.run(
        ["bash", str(ROOT / "launch/nodes.sh"), "2", "-m", "nothing"],
        env={**bare, **variables, **fakes},
        capture_output=True,
        text=True,
        check=True,
    )
    for node, visible in enumerate(seen):
        each = max(1, len([gpu for gpu in visible.split(",") if gpu]))
        each = int(variables.get("NPROC_PER_NODE", each))
        (line,) = [line for line in ended.stdout.splitlines() if line.startswith(f"[node {node}] {node} [")]
        assert f" [{visible}] -m stackgan_dist.launcher" in line
        assert f"--nproc-per-node {each} " in line
    too_few = gpus > 0 and variables.get("CUDA_VISIBLE_DEVICES") != "" and seen == ["", ""]
    assert ("all take the CPU" in ended.stderr) == too_few


def _script(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("nodes", ["4", "2:4"])
def test_several_nodes_have_to_be_told_where_to_meet(nodes: str) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "MASTER_ADDR"}
    ended = subprocess.run(
        ["bash", str(ROOT / "launch/torchrun.sh"), "-m", "nothing"],
        env={**bare, "NNODES": nodes, "PYTHON": sys.executable},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"error: NNODES is {nodes} and MASTER_ADDR is not set; ")
