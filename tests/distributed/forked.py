"""Ranks without torchrun, forked by a server that has torch loaded already: much quicker than fresh interpreters."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any


def fork_ranks(target: Callable[..., None], world_size: int, *args: Any) -> list[BaseProcess]:
    """Start `target(rank, *args)` in as many processes, each with torchrun's variables in its environment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([target.__module__])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ranks = [
        context.Process(target=_begin, args=(target, rank, world_size, port, args), daemon=True)
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    return list(ranks)


def _begin(target: Callable[..., None], rank: int, world_size: int, port: int, args: tuple[Any, ...]) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip
    target(rank, *args)


def join(ranks: list[BaseProcess], timeout_s: float) -> list[int | None]:
    """Wait for their ends, kill those that are late; the exit codes (None: it was late)."""
    for process in ranks:
        process.join(timeout_s)
    codes = [process.exitcode for process in ranks]
    for process in ranks:
        process.kill()
        process.join()
    return codes
