"""A rank that fails, and a rank that hangs, where the group is NCCL's: its end is a collective, and its waits block.

There is one GPU here at most, so gloo stands for NCCL: with an end that waits for all ranks, and with reductions that
go on beside the host until it asks for their result.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import FrameType

import pytest
import torch
import torch.distributed as dist
from distributed.forked import forked_ranks

from stackgan_dist.cli.doors import front_door
from stackgan_dist.distributed import departure, process_group
from stackgan_dist.distributed.process_group import LostPeerError, explained_peer_loss, wait_for
from stackgan_dist.errors import EXIT_USER_ERROR, RankError
from stackgan_dist.train import step_metrics
from stackgan_dist.train.step import StepReport
from stackgan_dist.train.step_metrics import METRICS, Reports

PATIENCE_S = 60.0
"""On a busy machine."""
TIMEOUT_S = 3.0


def _as_nccl() -> None:
    """An end for which all ranks have to come, and an abort that never returns."""
    dist.get_backend = lambda *_: "nccl"
    dist.destroy_process_group = dist.barrier
    process_group._abort = lambda: time.sleep(10 * PATIENCE_S)
    departure._ABORT_S = 0.5


def _failing_rank(fault: str) -> None:
    _as_nccl()

    @front_door
    def main() -> None:
        with process_group.process_group(10 * PATIENCE_S) as ranks:
            if ranks.rank == 1:
                raise RankError("shard 7 is damaged") if fault == "user" else RuntimeError("a fault of the code")
            dist.all_reduce(torch.ones(1))  # which rank 1 never comes to

    main()


@pytest.mark.parametrize(
    ("fault", "code", "printed"),
    [
        ("user", EXIT_USER_ERROR, "error on rank 1: shard 7 is damaged"),
        ("code", 1, "RuntimeError: a fault of the code"),
    ],
)
def test_a_fault_of_one_rank_is_printed_and_ends_it(tmp_path: Path, fault: str, code: int, printed: str) -> None:
    log = tmp_path / "log"
    with forked_ranks(_failing_rank, 2, fault, log=log) as ranks:
        ranks[1].join(PATIENCE_S)
        assert ranks[1].exitcode == code, log.read_text()
        assert printed in log.read_text()


def _clean_rank(folder: str) -> None:
    _as_nccl()
    with process_group.process_group(PATIENCE_S) as ranks:
        dist.all_reduce(torch.ones(1))
    Path(folder, f"left-{ranks.rank}").touch()


def test_without_a_fault_the_group_ends_together(tmp_path: Path) -> None:
    with forked_ranks(_clean_rank, 2, str(tmp_path), log=tmp_path / "log") as ranks:
        for rank in ranks:
            rank.join(PATIENCE_S)
        assert (tmp_path / "left-0").exists(), (tmp_path / "log").read_text()
        assert (tmp_path / "left-1").exists(), (tmp_path / "log").read_text()


def _waiting_rank(folder: str) -> None:
    """Rank 0 hands a reduction to its "device" and reads it later; rank 1 hangs before it takes part."""
    _as_nccl()
    begun: list[dist.Work] = []

    def gather(message: torch.Tensor) -> torch.Tensor:
        begun.append(dist.all_reduce(message, async_op=True))
        return message[None]

    class Finished:
        def query(self) -> bool:
            return bool(begun[-1].is_completed())

    step_metrics._copied = lambda message: (message, Finished())
    try:
        with process_group.process_group(TIMEOUT_S) as ranks:
            dist.distributed_c10d._set_pg_timeout(timedelta(seconds=10 * PATIENCE_S))  # the watchdog comes later
            if ranks.rank == 1:
                time.sleep(10 * PATIENCE_S)
            reports = Reports(replace(ranks, gather=gather), 0.5)
            with explained_peer_loss("at step 7"):
                reports.put(7, StepReport(*torch.zeros(len(METRICS))), stop=False)
                reports.read(everything=True)
    except LostPeerError as lost:
        Path(folder, "message").write_text(str(lost))
    os._exit(0)


def test_a_rank_that_hangs_is_named_before_the_watchdog_comes(tmp_path: Path) -> None:
    with forked_ranks(_waiting_rank, 2, str(tmp_path), log=tmp_path / "log") as ranks:
        ranks[0].join(PATIENCE_S)
        message = (tmp_path / "message").read_text()
        assert message.startswith("lost a peer at step 7 (timed out: "), message
        assert "in a roll call rank 1 (" in message
        assert f", process {ranks[1].pid}) did not answer" in message


def test_the_watchdog_of_any_group_comes_after_the_host_s_own_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed's groups take it from here, too."""
    cuda = torch.device("cuda", 0)
    assert process_group.group_timeout(60, torch.device("cpu")) == timedelta(seconds=60)
    assert process_group.group_timeout(60, cuda) == timedelta(seconds=120)
    monkeypatch.setenv("STACKGAN_BACKEND", "gloo")
    assert process_group.group_timeout(60, cuda) == timedelta(seconds=60)


def _launching_rank() -> None:
    """Rank 0 stands in a launch, since its device waits for rank 1, which hangs."""
    _as_nccl()
    with process_group.process_group(TIMEOUT_S) as ranks:
        if ranks.rank == 0:
            for _ in range(3):
                with ranks.launching:  # each of them quick enough
                    time.sleep(TIMEOUT_S / 2)
            time.sleep(2 * TIMEOUT_S)  # a checkpoint, say
            print("launching", flush=True)
            with ranks.launching:
                time.sleep(10 * PATIENCE_S)
        time.sleep(10 * PATIENCE_S)


def test_a_host_that_blocks_in_a_launch_names_the_rank_that_hangs(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with forked_ranks(_launching_rank, 2, log=log) as ranks:
        ranks[0].join(PATIENCE_S)
        assert ranks[0].exitcode == EXIT_USER_ERROR
        begun, _, message = log.read_text().partition("error on rank 0: lost a peer")
        assert "launching" in begun
        assert message.startswith(" (the device has taken no more work for 3 s); start again, the run resumes; in a ")
        assert f"rank 1 ({socket.gethostname()}, process {ranks[1].pid}) did not answer" in message


def test_signals_are_handled_while_the_device_is_waited_for() -> None:
    came: list[int] = []

    class Finished:
        def query(self) -> bool:
            return bool(came)

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(signal.SIGALRM, note)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        wait_for(Finished(), PATIENCE_S)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert came == [signal.SIGALRM]
