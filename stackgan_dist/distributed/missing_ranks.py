"""Who is missing, once a collective has waited for too long.

A collective knows that somebody did not come, and only sometimes who: in a ring everybody waits for a neighbour. So the
ranks that gave up meet once more at the group's store, and whoever does not come there is the one that hangs, is frozen
or was cut off.
"""

from __future__ import annotations

import os
import socket
import threading
import time

import torch.distributed as dist

_LOOK_EVERY_S = 0.05
_FAREWELL_S = 2.0


class RollCall:
    """Finds out which ranks no longer answer. Every rank makes one before anything can hang, and leaves its place here.

    Args:
        store: the group's.
        rank: this process's.
        world_size: how many there are.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int) -> None:
        self._store = dist.PrefixStore("roll-call", store)
        self._rank, self._world_size = rank, world_size
        self._store.set(f"place/{rank}", f"{socket.gethostname()}, process {os.getpid()}")

    def missing(self, patience_s: float) -> str:
        """A sentence that names who did not answer within `patience_s` seconds of this call.

        To be called by all ranks that are able to, at about the same time.
        """
        absent: dict[int, str] | None = None

        def call() -> None:
            nonlocal absent
            try:
                absent = self._call(patience_s)
            except (dist.DistError, RuntimeError):  # the store is gone
                return

        # A store that is frozen answers nothing and knows no timeout that could be relied on.
        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        caller.join(patience_s + 2 * _FAREWELL_S)
        if absent is None:
            return f"the group's store does not answer either: look at {_keeper_of_the_store()}"
        if not absent:
            return "in a roll call all ranks answered: look at the network between them"
        names = [f"rank {rank} ({place})" for rank, place in absent.items()]
        return f"in a roll call {', '.join(names)} did not answer: it hangs, is stopped or was cut off"

    def _call(self, patience_s: float) -> dict[int, str]:
        everybody = set(range(self._world_size))
        self._store.set(f"here/{self._rank}", "")
        absent = self._wait_for("here", everybody, patience_s)
        places = {rank: self._store.get(f"place/{rank}").decode() for rank in sorted(absent)}
        self._store.set(f"done/{self._rank}", "")
        if self._rank == 0:  # the store may go with this process, and others still read in it
            self._wait_for("done", everybody - absent, _FAREWELL_S)
        return places

    def _wait_for(self, what: str, ranks: set[int], timeout_s: float) -> set[int]:
        """Those of `ranks` that have not left a key of this name after `timeout_s`."""
        end = time.monotonic() + timeout_s
        while ranks and time.monotonic() < end:
            ranks = {rank for rank in ranks if not self._store.check([f"{what}/{rank}"])}
            time.sleep(_LOOK_EVERY_S)
        return ranks


def _keeper_of_the_store() -> str:
    keeper = "torchrun" if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else "rank 0"
    return f"{keeper} on {os.environ.get('MASTER_ADDR', 'the first host')}"
