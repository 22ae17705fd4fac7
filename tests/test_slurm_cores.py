"""What slurm/ does without a cluster: the cores of a node's task, by a Slurm that says what it is asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("variables", "cores", "said"),
    [
        ({"SLURM_JOB_CPUS_PER_NODE": "128,64(x2)", "SLURM_GPUS_ON_NODE": "8"}, 64, False),
        ({"SLURM_JOB_CPUS_PER_NODE": "64", "SLURM_CPUS_PER_TASK": "16", "SLURM_GPUS_ON_NODE": "8"}, 16, True),
        ({"SLURM_JOB_CPUS_PER_NODE": "1", "SLURM_GPUS_ON_NODE": "2"}, 1, True),
        ({"SLURM_JOB_CPUS_PER_NODE": "1", "CUDA_VISIBLE_DEVICES": ""}, 1, False),
    ],
)
def test_a_task_has_all_cores_of_the_job_and_too_few_are_said(
    tmp_path: Path, variables: dict[str, str], cores: int, said: bool
) -> None:
    for name, body in {"srun": 'echo "srun $*"', "scontrol": "echo NodeAddr=127.0.0.1"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "CUDA"))}
    job = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "node1", "PYTHON": sys.executable}
    ended = subprocess.run(
        ["bash", "-c", f"source '{ROOT}/slurm/lib.sh'; on_every_node stackgan_dist.train"],
        env={**bare, **job, **variables, "PATH": f"{tmp_path}:{bare['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"--cpus-per-task={cores} bash" in ended.stdout, ended.stderr
    assert ("want 4 for each" in ended.stdout) == said


@pytest.mark.parametrize("job", ["stage1", "stage2", "pack", "scores", "inception_score", "reproduce_cell"])
def test_a_job_outside_slurm_says_so_and_ends(job: str) -> None:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    ended = subprocess.run(["bash", str(ROOT / f"slurm/{job}.sh")], env=bare, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: this is a job: sbatch slurm/{job}.sh\n"
