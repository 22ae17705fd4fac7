"""What slurm/reproduce.sh submits, and what waits for what; on a real Slurm: tests/cluster/test_slurm.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

SBATCH = """#!/usr/bin/env bash
echo "$*" >> "$SUBMITTED"
wc -l < "$SUBMITTED"
"""
"""Notes what it is given and answers with the next job id."""


def _submitted(folder: Path, *arguments: str) -> tuple[list[str], str]:
    """The lines given to sbatch, and what the user is told."""
    program = folder / "bin" / "sbatch"
    program.parent.mkdir(exist_ok=True)
    program.write_text(SBATCH)
    program.chmod(0o755)
    notes = folder / "submitted"
    notes.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "SUBMITTED": str(notes),
        "PYTHON": sys.executable,
    }
    told = subprocess.run(
        ["bash", "slurm/reproduce.sh", *arguments],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return notes.read_text().splitlines(), told.stdout


def test_each_cell_waits_for_the_classifier_and_its_stage1(packed: Path, tmp_path: Path) -> None:
    given = ["table1", "--data", str(packed), "--scale", "smoke", "--folder", str(tmp_path), "--seed", "3", "4"]
    lines, told = _submitted(tmp_path, *given)
    jobs = {}
    for number, line in enumerate(lines[:-1], start=1):
        words = line.split()
        after = next((word.partition(":")[2] for word in words if word.startswith("--dependency=afterok")), "")
        name = words[words.index("--cell") + 1]
        seed = words[words.index("--cell") + 3] if name != "classifier" else ""
        assert "slurm/reproduce_cell.sh " + " ".join(given) in line
        assert "--kill-on-invalid-dep=yes" in words
        jobs[number] = (seed, name, after)
    cells = ("gan-int-cls", "gawwn-box", "gawwn-keypoints", "stage1-64")
    assert jobs == {
        1: ("", "classifier", ""),
        **{number: ("3", name, "1") for number, name in enumerate(cells, start=2)},
        6: ("3", "stackgan-128", "1:5"),
        **{number: ("4", name, "1") for number, name in enumerate(cells, start=7)},
        11: ("4", "stackgan-128", "1:10"),
    }
    assert "--dependency=afterany:1:2:3:4:5:6:7:8:9:10:11 " in lines[-1]
    assert lines[-1].endswith("--show")
    assert told.splitlines()[5] == "job 6: 3/stackgan-128 after classifier 3/stage1-64"
    assert told.splitlines()[-1] == "job 12: the table"
