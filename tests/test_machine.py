"""Cores as containers and batch systems grant them, read from folders laid out like the kernel's."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from stackgan_dist import machine
from stackgan_dist.machine import usable_cores


def _cgroup(folder: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    (folder / "own").write_text(own)
    for name, content in files.items():
        file = folder / "root" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return folder / "own", folder / "root"


@pytest.mark.parametrize(
    ("own", "files", "quota"),
    [
        ("0::/job\n", {"job/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/job\n", {"job/cpu.max": "max 100000\n"}, math.inf),
        ("0::/job/step\n", {"job/cpu.max": "150000 100000\n", "job/step/cpu.max": "max 100000\n"}, 1.5),
        ("0::/of/the/host\n", {"cpu.max": "200000 100000\n"}, 2),
        ("4:cpu,cpuacct:/job\n", {"cpu/job/cpu.cfs_quota_us": "300000", "cpu/job/cpu.cfs_period_us": "100000"}, 3),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("0::/job\n", {"job/cpu.max": "nonsense\n"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_the_tightest_quota_around_a_process_counts(
    tmp_path: Path, own: str, files: dict[str, str], quota: float
) -> None:
    assert machine._quota(*_cgroup(tmp_path, own, files)) == quota


def test_half_a_core_is_one_and_a_quota_above_the_cores_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    for quota, cores in ((0.5, 1), (1.5, 2), (3, 3), (64, 8), (math.inf, 8)):
        monkeypatch.setattr(machine, "_quota", lambda *_, quota=quota: quota)
        assert usable_cores() == cores


def test_a_system_without_cgroups_has_no_quota(tmp_path: Path) -> None:
    assert machine._quota(tmp_path / "missing", tmp_path) == math.inf
