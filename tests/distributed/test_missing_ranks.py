"""A rank that hangs is noticed within the configured time, and named, whatever its peers were waiting for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from distributed.forked import forked_ranks

from stackgan_dist.distributed.process_group import LostPeerError, Ranks, explained_peer_loss, process_group

TIMEOUT_S = 3.0
LATEST_S = 60.0
"""A busy machine's patience; alone it is the timeout and the roll call, 5 s."""


def _sum_up(ranks: Ranks) -> None:
    """In gloo's ring, where everybody waits for a neighbour."""
    dist.all_reduce(torch.ones(1000))


def _gather(ranks: Ranks) -> None:
    assert ranks.gather is not None
    ranks.gather(torch.ones(3))


COLLECTIVES = {"all_reduce": _sum_up, "gather": _gather}


def _rank(collective: str, hanging: int, stopped: bool, folder: str) -> None:
    rank = int(os.environ["RANK"])
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


HANGS = {
    "in a ring": ("all_reduce", 2, True),
    "in a ring, with its other threads alive": ("all_reduce", 1, False),
    "in a gather": ("gather", 1, True),
    "with the store": ("all_reduce", 0, True),
}
"""What all wait for, the rank that does not come, and whether it is stopped as a whole."""


@pytest.fixture(scope="module")
def hangs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Path, list[int | None]]]]:
    """Four groups of three ranks that wait at the same time; where their messages are, and their process ids."""
    with ExitStack() as groups:
        found = {}
        for number, (name, hang) in enumerate(HANGS.items()):
            folder = tmp_path_factory.mktemp(f"hang-{number}")
            ranks = groups.enter_context(forked_ranks(_rank, 3, *hang, str(folder), log=folder / "log"))
            found[name] = folder, [process.pid for process in ranks]
        yield found


def _wait_for(*paths: Path) -> float:
    """Seconds until all are there."""
    begin = time.monotonic()
    while not all(path.exists() for path in paths):
        assert time.monotonic() - begin < LATEST_S, [path.name for path in paths if not path.exists()]
        time.sleep(0.05)
    return time.monotonic() - begin


@pytest.mark.parametrize("name", HANGS)
def test_the_rank_that_hangs_is_named(hangs: dict[str, tuple[Path, list[int | None]]], name: str) -> None:
    hanging = HANGS[name][1]
    folder, processes = hangs[name]
    files = [folder / str(rank) for rank in range(3) if rank != hanging]
    _wait_for(folder / "hangs", *files)
    assert files[0].stat().st_mtime - (folder / "hangs").stat().st_mtime > TIMEOUT_S - 0.5
    for file in files:
        message = file.read_text()
        assert message.startswith("lost a peer at step 7 (")
        if name == "with the store":  # launch/torchrun.sh leaves it to rank 0, instead of torchrun
            assert "the group's store does not answer either: look at rank 0 on 127.0.0.1" in message
        else:
            assert f"in a roll call rank {hanging} (" in message
            assert f", process {processes[hanging]}) did not answer" in message
            assert message.count(", process ") == 1, "nobody else is suspected"
