"""Ranks without torchrun, forked by a server that has torch loaded already.

A fresh interpreter computes for two seconds before it has loaded torch, and torchrun is one, too. Where neither
torchrun nor the start of a rank is what is tested, ranks are forked.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from free_ports import free_port

from stackgan_dist.cli.doors import command_main


@contextlib.contextmanager
def forked_ranks(target: Callable[..., None], world_size: int, *args: Any, log: Path) -> Iterator[list[BaseProcess]]:
    """`target(*args)` in as many processes, with torchrun's variables in their environments and their output in `log`.

    They are killed at the end.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["distributed.preloaded"])
    # The server has a path of its own, and says nothing when it finds nothing to load.
    with patch.dict(os.environ, {"PYTHONPATH": os.pathsep.join(sys.path)}):
        forkserver.ensure_running()
    group = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    variables = {**os.environ, **group, "OMP_NUM_THREADS": "1"}
    ranks: list[BaseProcess] = [
        context.Process(target=_begin, args=(target, args, log, {**variables, "RANK": str(rank)}))
        for rank in range(world_size)
    ]
    try:
        for process in ranks:
            process.start()
        yield ranks
    finally:
        for process in ranks:
            if process.pid is not None:
                process.kill()
                process.join()


def run_forked(target: Callable[..., None], world_size: int, *args: Any, log: Path, timeout_s: float = 600) -> None:
    """Run ranks to their ends; AssertionError with their output when one fails, or at the end of the time."""
    with forked_ranks(target, world_size, *args, log=log) as ranks:
        end = time.monotonic() + timeout_s
        while any(process.exitcode is None for process in ranks):
            codes = [process.exitcode for process in ranks]
            assert not any(codes), f"exit codes {codes}\n{log.read_text()}"  # the others would wait for it
            assert time.monotonic() < end, f"did not end in {timeout_s} s: {codes}\n{log.read_text()}"
            time.sleep(0.02)
        codes = [process.exitcode for process in ranks]
        assert not any(codes), f"exit codes {codes}\n{log.read_text()}"


def run_door(world_size: int, module: str, *arguments: object, log: Path, timeout_s: float = 600) -> None:
    """Run `python -m stackgan_dist.MODULE ARGUMENTS` on so many ranks, as run_forked does."""
    run_forked(open_door, world_size, module, *map(str, arguments), log=log, timeout_s=timeout_s)


def open_door(module: str, *arguments: str) -> None:
    """`python -m stackgan_dist.MODULE ARGUMENTS` in this process."""
    sys.argv = [module, *arguments]
    command_main(module)()


def _begin(target: Callable[..., None], args: tuple[Any, ...], log: Path, variables: dict[str, str]) -> None:
    import torch

    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    # As in any rank: a child of the server would have its loader workers start from scratch, by a server of its own.
    multiprocessing.set_start_method("fork", force=True)
    # The server has the variables of when it was started.
    os.environ.clear()
    os.environ.update(variables, LOCAL_RANK=variables["RANK"])
    target(*args)
