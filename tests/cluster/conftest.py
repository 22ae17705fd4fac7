"""Real clusters for the tests of this folder, stopped after them; skipped with the reason where they cannot be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import hosts as hosts_module
import pytest
import slurm_cluster
from hosts import Hosts
from slurm_cluster import SlurmCluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A Slurm of four nodes."""
    if reason := slurm_cluster.missing():
        pytest.skip(f"Slurm: {reason}")
    cluster = SlurmCluster()
    try:
        try:
            cluster.start()
        except RuntimeError as error:
            pytest.skip(f"Slurm: {error}")
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def four_hosts() -> Iterator[Hosts]:
    """Hosts h1 to h4 that see only each other."""
    if reason := hosts_module.missing():
        pytest.skip(f"hosts: {reason}")
    hosts = Hosts(4)
    try:
        hosts.start()
        yield hosts
    finally:
        hosts.stop()


@pytest.fixture(scope="session")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few packed birds, for 64 and 128 pixels."""
    out = tmp_path_factory.mktemp("data") / "painted"
    pack = ["-m", "stackgan_dist.pack", "painted", "--out", str(out), "--sizes", "76", "152", "--limit", "48"]
    subprocess.run([sys.executable, *pack, "--splits", "train"], cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture
def tiny(packed: Path, tmp_path: Path) -> list[str]:
    """Trainer options for a Stage-I of six steps an epoch that runs in tmp_path/stage1."""
    options = {
        "preset": "demo-stage1",
        "data.url": packed,
        "data.workers": 0,
        "model.generator-width": 4,
        "model.discriminator-width": 4,
        "training.batch-size": 6,
        "training.epochs": 1,
        "run.folder": tmp_path,
        "run.name": "stage1",
        "run.tick-steps": 1,
        "run.timeout-s": 60,
    }
    return [word for name, value in options.items() for word in (f"--{name}", str(value))]
