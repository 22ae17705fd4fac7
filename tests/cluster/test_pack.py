"""slurm/pack.sh in parts: an array of jobs, and a job of several nodes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from conftest import ROOT
from slurm_cluster import SlurmCluster

LONGEST_S = 240.0
ARGUMENTS = ("--sizes", "8", "--splits", "train", "--limit", "30", "--samples-per-shard", "5", "--workers", "1")


def _packed(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((out / "train/8").glob("*.*"))}


def test_an_array_and_many_nodes_pack_the_same_bytes(slurm: SlurmCluster, tmp_path: Path) -> None:
    def pack(name: str, *options: str) -> dict[str, bytes]:
        slurm.sbatch(
            f"--output={tmp_path}/{name}-%a.log",
            *options,
            "slurm/pack.sh",
            "painted",
            "--out",
            str(tmp_path / name),
            *ARGUMENTS,
            cwd=ROOT,
            PYTHON=sys.executable,
        )
        index = tmp_path / name / "train/8/index.json"
        deadline = time.monotonic() + LONGEST_S
        while not index.exists():
            logs = "".join(path.read_text() for path in sorted(tmp_path.glob(f"{name}-*.log")))
            assert time.monotonic() < deadline, logs
            time.sleep(0.5)
        return _packed(tmp_path / name)

    nodes = pack("nodes", "--nodes=3")
    assert sorted(nodes) == ["index.json", *(f"shard-{number:06d}.tar" for number in range(6))]
    assert pack("array", "--array=3-7:2", "--nodes=1") == nodes
