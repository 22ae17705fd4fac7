"""The process group, as torchrun describes it through the environment; a single process is a group of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from stackgan_dist.distributed.environment import ranks_from_environment
from stackgan_dist.distributed.gather import DeviceGather, Gather, SmallGather, gather_alone
from stackgan_dist.distributed.missing_ranks import RollCall
from stackgan_dist.errors import RankError, UserError

_CHUNK_BYTES = 64 * 2**20
_ROLL_CALL_S = 10.0
"""How far apart ranks may give up waiting for one that hangs, at most."""


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
    if torch.cuda.is_available():
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    roll_call = None
    if world_size > 1:
        timeout = timedelta(seconds=timeout_s)
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
        roll_call = RollCall(store, rank, world_size)
        dist.init_process_group(
            backend="nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=timeout,
            device_id=device if device.type == "cuda" else None,
        )
    small = SmallGather(timeout_s) if world_size > 1 and device.type == "cpu" else None
    gather: Gather | None = small or gather_alone
    if device.type == "cuda":
        gather = DeviceGather(dist.new_group(timeout=timedelta(seconds=timeout_s))) if world_size > 1 else None
    try:
        yield Ranks(rank, world_size, device, gather)
    except LostPeerError as lost:
        if roll_call is None or "imed out" not in str(lost):
            raise  # it closed its connections, and torchrun knows who has ended
        raise LostPeerError(f"{lost}; {roll_call.missing(min(_ROLL_CALL_S, timeout_s / 2))}") from lost.__cause__
    finally:
        if small is not None:
            small.close()
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def explained_peer_loss(when: str) -> Iterator[None]:
    """Turn what a collective raises when a peer is gone into a LostPeerError; the peer's own error says why it left."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if isinstance(error, dist.DistError) or any(word in reason for word in ("gloo", "NCCL", "onnection")):
            raise LostPeerError(f"lost a peer {when} ({reason}); start again, the run resumes") from error
        raise


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
    """What rank `source` passes as `data` (bytes or None), on every rank."""
    if not ranks.distributed:
        return data
    size = torch.tensor([-1 if data is None else len(data)], device=ranks.device)
    dist.broadcast(size, src=source)
    total = int(size)
    if total < 0:
        return None
    buffer = torch.empty(total, dtype=torch.uint8)
    if data is not None and ranks.rank == source:
        buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    for begin in range(0, total, _CHUNK_BYTES):
        chunk = buffer[begin : begin + _CHUNK_BYTES].to(ranks.device)
        dist.broadcast(chunk, src=source)
        buffer[begin : begin + _CHUNK_BYTES] = chunk.cpu()
    return buffer.numpy().tobytes()
