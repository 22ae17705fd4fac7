"""Ranks that were started for different work say so before the first step, and none of them waits."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.forked import forked_ranks, open_door
from distributed.tiny import TINY_FLAGS

from stackgan_dist.distributed import process_group
from stackgan_dist.distributed.gather import gather_alone
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import EXIT_USER_ERROR

DIFFERENCES: dict[str, tuple[list[str], str]] = {
    "rate": (["--training.learning-rate", "0.1"], "training.learning_rate: 0.1 here, 0.0002 on rank 0"),
    "seed": (["--training.seed", "7"], "training.seed: 7 here, 0 on rank 0"),
    "batch": (["--training.batch-size", "9"], "training.batch_size: 9 here, 7 on rank 0"),
    "writes": (["--run.checkpoint-steps", "3"], "run.checkpoint_steps: 3 here, 1000 on rank 0"),
    "data": (["--data.split", "test"], "data index: "),
}


def _rank(arguments: list[str], change: list[str]) -> None:

    open_door("train", *arguments, *(change if os.environ["RANK"] == "1" else []))


def _codes(ranks: Any, timeout_s: float) -> list[int | None]:
    end = time.monotonic() + timeout_s
    while any(process.exitcode is None for process in ranks) and time.monotonic() < end:
        time.sleep(0.05)
    return [process.exitcode for process in ranks]


@pytest.mark.parametrize("difference", DIFFERENCES)
def test_what_differs_is_named_by_the_rank_that_differs(packed: Path, tmp_path: Path, difference: str) -> None:
    change, expected = DIFFERENCES[difference]
    arguments = [*TINY_FLAGS, "--data.url", str(packed), "--run.folder", str(tmp_path), "--run.name", "run"]
    with forked_ranks(_rank, 3, arguments, change, log=tmp_path / "log") as ranks:
        codes = _codes(ranks, 60)
    log = (tmp_path / "log").read_text()
    assert codes == [EXIT_USER_ERROR] * 3, log
    assert f"error on rank 1: this rank was started for something else than rank 0 ({expected}" in log
    assert "error: 1 of 3 ranks were started for something else" in log
    assert "Traceback" not in log
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_nodes_may_keep_the_same_data_elsewhere(packed: Path, tmp_path: Path) -> None:
    """Another path of the same set, another number of workers."""
    (tmp_path / "there").symlink_to(packed)
    arguments = [*TINY_FLAGS, "--data.url", str(packed), "--run.folder", str(tmp_path), "--run.name", "run"]
    arguments += ["--training.epochs", "1"]
    change = ["--data.url", str(tmp_path / "there"), "--data.workers", "1", "--data.memory-gb", "0"]
    with forked_ranks(_rank, 2, arguments, change, log=tmp_path / "log") as ranks:
        codes = _codes(ranks, 120)
    assert codes == [0, 0], (tmp_path / "log").read_text()
    assert (tmp_path / "run" / "DONE").exists()


def test_rank_0_makes_no_copy_of_what_it_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is as large as all that a run trains."""
    sent: list[int] = []
    monkeypatch.setattr(process_group, "_CHUNK_BYTES", 4)
    monkeypatch.setattr(process_group.dist, "broadcast", lambda tensor, src: sent.extend(tensor.tolist()))
    data = bytes(range(10))
    assert process_group.broadcast_bytes(data, Ranks(0, 2, torch.device("cpu"), gather_alone)) is data
    assert sent == [10, *data]
