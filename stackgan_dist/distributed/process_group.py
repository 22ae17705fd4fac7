"""The process group, as torchrun describes it through the environment; a single process is a group of one."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist

from stackgan_dist.devices import device_of_rank, prepare_cuda
from stackgan_dist.distributed.departure import end_process, is_broken, leave_broken
from stackgan_dist.distributed.environment import only_gloo, ranks_from_environment
from stackgan_dist.distributed.gather import DeviceGather, Gather, SmallGather, gather_alone
from stackgan_dist.distributed.launch_watch import LaunchWatch
from stackgan_dist.distributed.missing_ranks import RollCall
from stackgan_dist.errors import EXIT_USER_ERROR, RankError, UserError, first_line
from stackgan_dist.machine import ranks_of_this_machine

_CHUNK_BYTES = 64 * 2**20
_ROLL_CALL_S = 10.0
"""How far apart ranks may give up waiting for one that hangs, at most."""
_WATCHDOG = 2
"""NCCL's own timeout, in those of the run."""
_LOOK_S = 0.0002
"""How often a rank looks whether its device has finished: a small part of any step."""


class LostPeerError(RankError):
    """A collective failed because a peer was gone, or did not come in time."""


@dataclass(frozen=True)
class Ranks:
    """Who this process is among its peers."""

    rank: int
    world_size: int
    device: torch.device
    """Where this rank computes."""
    gather: Gather | None
    """How small vectors are exchanged; None on a single CUDA device, which has nothing to exchange."""
    timeout_s: float = math.inf
    """How long to wait for a peer."""
    launching: AbstractContextManager[object] = field(default_factory=nullcontext)
    """Around what gives the device work to do with its peers: it ends the process where that blocks the host."""

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which alone writes, prints and shows samples."""
        return self.rank == 0

    @property
    def distributed(self) -> bool:
        """Whether there are peers."""
        return self.world_size > 1


@contextmanager
def process_group(timeout_s: float) -> Iterator[Ranks]:
    """Join the process group (nccl on CUDA, gloo on CPU) and leave it at the end.

    `timeout_s` bounds how long a collective waits for a peer that was cut off or hangs; torch's own half an hour
    would cost a cluster more than the restart does. A LostPeerError that leaves the group after such a wait is raised
    anew, with the peer's name.
    """
    rank, local_rank, world_size = ranks_from_environment()
    prepare_cuda()
    by_gloo = only_gloo()
    device = device_of_rank(local_rank, max(ranks_of_this_machine(), local_rank + 1), shared=by_gloo)
    by_nccl = device.type == "cuda" and not by_gloo
    roll_call: RollCall | None = None
    small: SmallGather | None = None
    watch: LaunchWatch | None = None
    timeout = group_timeout(timeout_s, device)
    if world_size > 1:
        store, _, _ = next(dist.rendezvous("env://", timeout=timedelta(seconds=timeout_s)))
        roll_call = RollCall(store, rank, world_size)
        dist.init_process_group(
            backend="nccl" if by_nccl else "gloo",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=timeout,
            device_id=device if by_nccl else None,
        )
    try:
        gather: Gather | None = gather_alone
        if device.type == "cuda":
            gather = DeviceGather(dist.new_group(timeout=timeout)) if world_size > 1 else None
        elif world_size > 1:
            gather = small = SmallGather(timeout_s)
        if roll_call is not None and dist.get_backend() == "nccl":
            watch = LaunchWatch(timeout_s, partial(_give_up, rank, timeout_s, roll_call))
        yield Ranks(rank, world_size, device, gather, timeout_s, watch or nullcontext())
    except BaseException as error:
        if dist.is_initialized() and dist.get_backend() == "nccl":
            leave_broken(_abort)
        if roll_call is None or not isinstance(error, LostPeerError) or "imed out" not in str(error):
            raise  # a lost peer that closed its connections is known to torchrun
        raise LostPeerError(f"{error}; {_missing(roll_call, timeout_s)}") from error.__cause__
    finally:
        if watch is not None:
            watch.close()
        if small is not None:
            small.close()
        if dist.is_initialized() and not is_broken():
            dist.destroy_process_group()


def _missing(roll_call: RollCall, timeout_s: float) -> str:
    return roll_call.missing(min(_ROLL_CALL_S, timeout_s / 2))


def _give_up(rank: int, timeout_s: float, roll_call: RollCall) -> None:
    """Say who is missing and end the process, whose main thread blocks in a launch."""
    lost = f"lost a peer (the device has taken no more work for {timeout_s:g} s); start again, the run resumes"
    print(f"error on rank {rank}: {lost}; {_missing(roll_call, timeout_s)}", file=sys.stderr, flush=True)
    leave_broken(_abort)
    end_process(EXIT_USER_ERROR)


def group_timeout(timeout_s: float, device: torch.device) -> timedelta:
    """How long a collective of a group waits for a peer that hangs.

    NCCL's watchdog ends the process without a word, so it comes after what waits for the device here.
    """
    return timedelta(seconds=timeout_s * (_WATCHDOG if device.type == "cuda" and not only_gloo() else 1))


def _abort() -> None:
    dist.distributed_c10d._abort_process_group()


@contextmanager
def explained_peer_loss(when: str) -> Iterator[None]:
    """Turn what a collective raises when a peer is gone into a LostPeerError; the peer's own error says why it left."""
    try:
        yield
    except RuntimeError as error:
        reason = first_line(error)
        if isinstance(error, dist.DistError) or any(word in reason for word in ("gloo", "NCCL", "onnection")):
            raise LostPeerError(f"lost a peer {when} ({reason}); start again, the run resumes") from error
        raise


class Event(Protocol):
    """A place in a device's work, as torch.cuda.Event is."""

    def query(self) -> bool:
        """Whether the device has come there."""
        ...


def wait_for(event: Event, timeout_s: float) -> None:
    """Wait until the device has come to `event`; DistBackendError after `timeout_s`: it stands in a collective then.

    Unlike torch's own wait this one ends before NCCL's watchdog ends the process, and signals are handled in it.
    """
    end = time.monotonic() + timeout_s
    while not event.query():
        if time.monotonic() > end:
            raise dist.DistBackendError(f"timed out: the device waits for a peer since {timeout_s:.0f} s")
        time.sleep(_LOOK_S)


def wait_for_device(ranks: Ranks) -> None:
    """Wait for what the device was given so far, before the host reads a result of it."""
    if ranks.device.type == "cuda":
        wait_for(torch.cuda.current_stream(ranks.device).record_event(), ranks.timeout_s)


def main_first(work: Callable[[], object], ranks: Ranks) -> None:
    """Do `work` on rank 0 alone; a UserError that it raises is raised on every rank, so that none waits for rank 0."""
    fault: UserError | None = None
    if ranks.is_main:
        try:
            work()
        except UserError as error:
            fault = error
    message = broadcast_bytes(str(fault).encode() if fault else None, ranks)
    if message is not None:
        raise UserError(message.decode()) from fault


def broadcast_bytes(data: bytes | None, ranks: Ranks, *, source: int = 0) -> bytes | None:
    """What rank `source` passes as `data` (bytes or None), on every rank; that one gets its own back, not a copy."""
    if not ranks.distributed:
        return data
    size = torch.tensor([-1 if data is None else len(data)], device=ranks.device)
    dist.broadcast(size, src=source)
    wait_for_device(ranks)
    total = int(size)
    if total < 0:
        return None
    if total == 0:
        return b""
    if ranks.rank == source:
        assert data is not None
        for begin in range(0, total, _CHUNK_BYTES):
            part = bytearray(data[begin : begin + _CHUNK_BYTES])
            dist.broadcast(torch.frombuffer(part, dtype=torch.uint8).to(ranks.device), src=source)
        return data
    received = torch.empty(total, dtype=torch.uint8)
    for piece in received.split(_CHUNK_BYTES):
        chunk = piece.to(ranks.device)
        dist.broadcast(chunk, src=source)
        piece.copy_(chunk)
    return received.numpy().tobytes()
