"""The check on one GPU, small and on a CPU, so that it goes on working; two parts alone need a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # as check.py's parts find each other

import check
import jobs
import parts
import steps
from context import Context, SkippedError
from predictions import PREDICTIONS

FOR_A_GPU_ALONE = {"ranks", "too many"}
"""The first runs what tests/distributed run, the second would not be too many."""


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all parts write: the scores are of the run of `trainings`."""
    return tmp_path_factory.mktemp("check")


@pytest.mark.parametrize("name", parts.PARTS)
def test_parts_run_small_on_a_cpu(name: str, packed: Path, out: Path) -> None:
    found: dict[str, Any] = {}
    (out / name).mkdir()
    context = Context(torch.device("cpu"), True, out / name, packed, packed, 60.0, found.__setitem__)
    reason = _reason_to_skip(parts.PARTS[name][0], context)
    assert reason == ("needs a GPU" if name in FOR_A_GPU_ALONE else None)
    assert bool(found) == (reason is None)
    if exact := EXACT.get(name):
        assert all(one.holds(found[one.key]) for one in PREDICTIONS if one.key == exact), found
        assert exact in found
    if name == "resume":
        assert found["resume/fp32, deterministic"]
    if name == "captured":
        assert found["captured/paper, same bits"]


EXACT = {
    "float64": "float64/families", "devices": "devices/to cpu", "syncs": "syncs", "set": "set/bits",
    "trainings": "markers", "scores": "scores/difference",
}  # fmt: skip


def _reason_to_skip(part: Callable[[Context], None], context: Context) -> str | None:
    try:
        part(context)
    except SkippedError as skipped:
        return str(skipped)
    return None


def test_a_part_that_fails_or_hangs_does_not_end_the_check(tmp_path: Path) -> None:
    found = check.Found(tmp_path / "found.jsonl")
    codes = {
        "good": "print('fine')",
        "bad": "raise SystemExit('no such kernel')",
        "slow": "import time; time.sleep(60)",
        "skipping": "print('skipped: needs a GPU')",
    }

    def start(name: str, limit_s: int) -> str:
        return check.in_time([sys.executable, "-c", codes[name]], limit_s, {}, tmp_path / name)[0]

    states = check.run_all([(name, 2) for name in codes], start, found)
    assert states == {
        "good": "passed",
        "bad": "FAILED: no such kernel",
        "slow": "ended after 2 s",
        "skipping": "skipped: needs a GPU",
    }
    found.note("captured/64, on", 25_000.0)
    (tmp_path / "found.jsonl").open("a").write('{"key": "cut o')
    found = check.Found(tmp_path / "found.jsonl")
    assert found.read()["part/slow"] == "ended after 2 s"
    text = check.table(found.read(), states)
    assert "| Stage-I at batch 64, captured | 21000 to 28000 img/s | 2.5e+04 img/s | as predicted |" in text
    assert "| waits of the host in 20 steps | at most 0  | - | not measured |" in text


def test_every_prediction_is_measured_by_a_part() -> None:
    """By its key in the source of the parts, or by the pattern that makes it."""
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (steps, jobs))
    for one in PREDICTIONS:
        head, _, tail = one.key.partition("/")
        assert f'"{one.key}"' in source or any(word in source for word in (f"{head}/", f'/{tail}"')), one.key
