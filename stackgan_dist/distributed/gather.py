"""Gathering small vectors from all ranks, tens of times a step: batch norm's statistics, a step's report.

On CPUs gloo hands every collective to threads that sleep and wake; on a busy host each wake-up may cost a scheduler's
tick of 4 ms, many times what a narrow network computes between two of them. Ranks of one host therefore talk over Unix
sockets here and spin, for a moment, instead of sleeping. Ranks of several hosts, and of one that has no such sockets,
use gloo. Ranks on CUDA devices have a process group for it.
"""

from __future__ import annotations

import os
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stackgan_dist.machine import usable_cores

_SPIN_S = 0.002
"""How long to poll without sleeping. Longer waits are no hurry: a peer is busy with something else."""


# The same function; torch 2.13 has given it another name, and warns of the old one.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor

Gather = Callable[[Tensor], Tensor]
"""`part` (n,) -> that of every rank in the order of ranks, (world size, n)."""


def gather_alone(part: Tensor) -> Tensor:
    """The Gather of a single rank."""
    return part.unsqueeze(0)


def gather_rows(part: Tensor, counts: Sequence[int], gather: Gather) -> Tensor:
    """`part` (n, k) of every rank, one after the other, (sum of `counts`, k); `counts` are the ranks' n."""
    most = max(counts)
    padded = torch.cat([part, part.new_zeros(most - len(part), part.shape[1])])
    of_ranks = gather(padded.flatten()).view(len(counts), most, part.shape[1])
    return torch.cat([rows[:n] for rows, n in zip(of_ranks, counts, strict=True)])


class DeviceGather:
    """Gathers small vectors of all ranks on their CUDA devices, and adds them up, without a wait of the host.

    Args:
        group: a process group for nothing else: within one, whatever is small waits for the gradients before it.
    """

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._world_size = dist.get_world_size(group)

    def __call__(self, part: Tensor) -> Tensor:
        """`part` (n,) of every rank in the order of ranks, (world size, n)."""
        parts = part.new_empty(self._world_size * len(part))
        _all_gather(parts, part.contiguous(), group=self._group)
        return parts.view(self._world_size, len(part))

    def add_up(self, part: Tensor) -> Tensor:
        """The sum of all ranks' `part` (n,), which is written over."""
        dist.all_reduce(part, group=self._group)
        return part


class SmallGather:
    """Gathers equal-sized CPU tensors of all ranks; every rank must make the same calls in the same order.

    Args:
        timeout_s: how long to wait for a peer.
    """

    def __init__(self, timeout_s: float) -> None:
        self._rank, self._world_size = dist.get_rank(), dist.get_world_size()
        self._timeout_s = timeout_s
        hosts: list[str] = [""] * self._world_size
        dist.all_gather_object(hosts, _host())
        one_host = len(set(hosts)) == 1
        # More ranks than cores: whoever spins keeps a peer from the very work it waits for.
        cores = usable_cores()
        self._spin_s = _SPIN_S if self._world_size <= cores else 0.0
        self._peers: dict[int, socket.socket] = self._connect() if one_host else {}
        self._by_sockets = bool(self._peers)

    def __call__(self, part: Tensor) -> Tensor:
        """`part` (n,) of every rank in the order of ranks, (world size, n).

        Raises RuntimeError when a peer is gone or does not answer in time.
        """
        parts = part.new_empty(self._world_size, len(part))
        if not self._by_sockets:
            dist.all_gather(list(parts.unbind()), part.contiguous())
            return parts
        parts[self._rank] = part
        outgoing = _bytes_of(parts[self._rank])
        sending = dict.fromkeys(self._peers, outgoing)
        receiving = {peer: _bytes_of(parts[peer]) for peer in self._peers}
        since = time.monotonic()
        while sending or receiving:
            # Both directions move on together: two full buffers would wait for each other otherwise.
            moved = self._send(sending) | self._receive(receiving)
            if moved:
                since = time.monotonic()
            elif (waited := time.monotonic() - since) > self._spin_s:
                self._sleep(sending, receiving, self._timeout_s - waited)
        return parts

    def close(self) -> None:
        """Hang up."""
        for peer in self._peers.values():
            peer.close()

    def _send(self, sending: dict[int, memoryview]) -> bool:
        moved = False
        for peer, rest in list(sending.items()):
            try:
                sent = self._peers[peer].send(rest)
            except BlockingIOError:
                continue
            except OSError as error:
                raise RuntimeError(f"Connection to rank {peer} is closed: {error}") from error
            moved = True
            if sent == len(rest):
                del sending[peer]
            else:
                sending[peer] = rest[sent:]
        return moved

    def _receive(self, receiving: dict[int, memoryview]) -> bool:
        moved = False
        for peer, rest in list(receiving.items()):
            try:
                received = self._peers[peer].recv_into(rest)
            except BlockingIOError:
                continue
            except OSError as error:
                raise RuntimeError(f"Connection to rank {peer} is closed: {error}") from error
            if received == 0:
                raise RuntimeError(f"Connection closed by rank {peer}")
            moved = True
            if received == len(rest):
                del receiving[peer]
            else:
                receiving[peer] = rest[received:]
        return moved

    def _sleep(self, sending: dict[int, memoryview], receiving: dict[int, memoryview], at_most_s: float) -> None:
        readable = [self._peers[peer] for peer in receiving]
        writable = [self._peers[peer] for peer in sending]
        if at_most_s <= 0 or not any(select.select(readable, writable, [], at_most_s)):
            waiting_for = sorted({*sending, *receiving})
            raise RuntimeError(
                f"Connection timed out: no answer from rank(s) {', '.join(map(str, waiting_for))} "
                f"for {self._timeout_s:.0f} s"
            )

    def _connect(self) -> dict[int, socket.socket]:
        """A socket to every other rank, of which the higher calls the lower; none where any rank cannot have one."""
        # A folder of this user's alone: nobody else can take part.
        folders = [_own_folder() if self._rank == 0 else None]
        dist.broadcast_object_list(folders)
        folder = folders[0]
        peers: dict[int, socket.socket] = {}
        try:
            with _short_path(folder) as path, socket.socket(socket.AF_UNIX) as server:
                if not self._all_can(lambda: self._listen(server, path)) or not self._all_can(
                    lambda: self._call(path, peers)
                ):
                    for connection in peers.values():
                        connection.close()
                    return {}
                for _ in range(self._rank + 1, self._world_size):
                    connection, _ = server.accept()
                    connection.settimeout(self._timeout_s)
                    peers[int.from_bytes(connection.recv(4, socket.MSG_WAITALL), "little")] = connection
        finally:
            if self._rank == 0 and folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
        for connection in peers.values():
            connection.setblocking(False)
        return peers

    def _listen(self, server: socket.socket, path: str) -> None:
        server.bind(f"{path}/{self._rank}")
        server.listen(self._world_size)
        server.settimeout(self._timeout_s)

    def _call(self, path: str, peers: dict[int, socket.socket]) -> None:
        for peer in range(self._rank):
            peers[peer] = connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(self._timeout_s)
            connection.connect(f"{path}/{peer}")
            connection.sendall(self._rank.to_bytes(4, "little"))

    def _all_can(self, work: Callable[[], None]) -> bool:
        """Do `work` on every rank, and whether it worked on all of them; a rank where it did not says why."""
        done = torch.ones(1)
        try:
            work()
        except OSError as error:
            done.zero_()
            print(f"note on rank {self._rank}: small tensors go by gloo, which is slower: {error}", flush=True)
        dist.all_reduce(done, dist.ReduceOp.MIN)
        return bool(done)


def _own_folder() -> str | None:
    try:
        return tempfile.mkdtemp(prefix="stackgan-")
    except OSError:
        return None


@contextmanager
def _short_path(folder: str | None) -> Iterator[str]:
    """A path of `folder` that leaves room for names: a Unix socket's may have 107 bytes, and $TMPDIR has more."""
    if folder is None or not Path("/proc/self/fd").exists():
        yield folder or "/nonexistent"
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # on another file system than rank 0's; whoever calls finds out
        yield folder
        return
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _bytes_of(row: Tensor) -> memoryview:
    return memoryview(row.numpy().view(np.uint8))  # type: ignore[arg-type]


def _host() -> str:
    """What ranks that can reach each other over a Unix socket have in common."""
    name = f"{socket.gethostname()} {torch.__version__}"
    boot, mounts = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/mnt")
    if boot.exists() and mounts.exists():
        name += f" {boot.read_text().strip()} {mounts.stat().st_ino}"
    return name
