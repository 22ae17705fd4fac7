"""A rank that hangs is noticed within the configured time, and named, whatever its peers were waiting for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed.forked import fork_ranks

from stackgan_dist.distributed.process_group import LostPeerError, Ranks, explained_peer_loss, process_group

TIMEOUT_S = 3.0
LATEST_S = 60.0
"""A busy machine's patience; alone it is the timeout and the roll call, 4 s."""


def _sum_up(ranks: Ranks) -> None:
    """In gloo's ring, where everybody waits for a neighbour."""
    dist.all_reduce(torch.ones(1000))


def _gather(ranks: Ranks) -> None:
    assert ranks.gather is not None
    ranks.gather(torch.ones(3))


COLLECTIVES = {"all_reduce": _sum_up, "gather": _gather}


def _rank(rank: int, collective: str, hanging: int, stopped: bool, folder: str) -> None:
    try:
        with process_group(TIMEOUT_S) as ranks:
            COLLECTIVES[collective](ranks)
            if rank == hanging:
                Path(folder, "hangs").touch()
                if stopped:
                    os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(LATEST_S)  # all but the main thread go on
            with explained_peer_loss("at step 7"):
                for _ in range(10):
                    COLLECTIVES[collective](ranks)
    except LostPeerError as lost:
        Path(folder, f"{rank}.tmp").write_text(str(lost))
        Path(folder, f"{rank}.tmp").rename(Path(folder, str(rank)))
    time.sleep(LATEST_S)  # a rank that ends would be noticed by that


def _wait_for(*paths: Path) -> float:
    """Seconds until all are there."""
    begin = time.monotonic()
    while not all(path.exists() for path in paths):
        assert time.monotonic() - begin < LATEST_S, [path.name for path in paths if not path.exists()]
        time.sleep(0.05)
    return time.monotonic() - begin


@pytest.mark.parametrize(
    ("collective", "hanging", "stopped"),
    [("all_reduce", 2, True), ("all_reduce", 1, False), ("gather", 1, True)],
)
def test_the_rank_that_hangs_is_named(tmp_path: Path, collective: str, hanging: int, stopped: bool) -> None:
    ranks = fork_ranks(_rank, 3, collective, hanging, stopped, str(tmp_path))
    try:
        _wait_for(tmp_path / "hangs")
        files = [tmp_path / str(rank) for rank in range(3) if rank != hanging]
        took_s = _wait_for(*files)
        assert took_s > TIMEOUT_S - 0.5
        for file in files:
            message = file.read_text()
            assert message.startswith("lost a peer at step 7 (")
            assert f"in a roll call rank {hanging} (" in message, message
            assert f", process {ranks[hanging].pid}) did not answer" in message
            assert message.count(", process ") == 1, "nobody else is suspected"
    finally:
        for process in ranks:
            process.kill()
            process.join()


def test_a_rank_that_hangs_with_the_store_is_named_too(tmp_path: Path) -> None:
    """Without torchrun's own store, rank 0 keeps it: launch/torchrun.sh does so."""
    ranks = fork_ranks(_rank, 3, "all_reduce", 0, True, str(tmp_path))
    try:
        _wait_for(tmp_path / "hangs")
        _wait_for(tmp_path / "1", tmp_path / "2")
        for rank in (1, 2):
            message = (tmp_path / str(rank)).read_text()
            assert "the group's store does not answer either: look at rank 0 on 127.0.0.1" in message
    finally:
        for process in ranks:
            process.kill()
            process.join()
