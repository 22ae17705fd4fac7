"""The check on one GPU, small and on a CPU, so that it goes on working; what needs a GPU skips itself."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # as check.py's parts find each other

import check
import parts
from predictions import PREDICTIONS

RUN_ON_A_CPU = {"versions", "float64", "syncs", "resume", "devices", "captured", "curves", "set"}


@pytest.mark.parametrize("name", parts.PARTS)
def test_parts_run_small_on_a_cpu(name: str, packed: Path, tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    context = parts.Context(torch.device("cpu"), True, tmp_path, packed, None, 60.0, found.__setitem__)
    reason = _reason_to_skip(parts.PARTS[name][0], context)
    assert reason in (None, "needs a GPU")
    assert (name in RUN_ON_A_CPU) == (reason is None or bool(found))  # what a CPU can measure comes before
    if exact := EXACT.get(name):
        assert all(one.holds(found[one.key]) for one in PREDICTIONS if one.key == exact), found
        assert exact in found
    if name == "resume":
        assert found["resume/fp32, deterministic"]
    if name == "captured":
        assert found["captured/paper, same bits"]


EXACT = {"float64": "float64/families", "devices": "devices/to cpu", "syncs": "syncs", "set": "set/bits"}


def _reason_to_skip(part: Callable[[parts.Context], None], context: parts.Context) -> str | None:
    try:
        part(context)
    except parts.SkippedError as skipped:
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
    source = Path(parts.__file__).read_text(encoding="utf-8")
    for one in PREDICTIONS:
        head, _, tail = one.key.partition("/")
        assert f'"{one.key}"' in source or any(word in source for word in (f"{head}/", f'/{tail}"')), one.key
