"""How long a checkpoint holds up training: the copy to host memory, and what the write in the background takes.

A state of the size of a paper-width Stage-II run with its optimizers, on the host or on a CUDA device, which copies
into pinned memory. "fresh" is a first save, whose copy takes fresh memory; "again" is every later one. Meanwhile a loop
of small operations, each with a little Python around it, plays the training: what it loses is what the background
keeps of Python's lock and of the cores.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import torch

from stackgan_dist.bench.machine import describe_machine, pick_device
from stackgan_dist.bench.report import Report, Table
from stackgan_dist.bench.timing import Timing, in_turns, wait_for
from stackgan_dist.machine import peak_memory_bytes
from stackgan_dist.ranges import Range
from stackgan_dist.runs.checkpoint import Checkpointer, to_host


@dataclass(frozen=True)
class Options:
    """How much, and how often."""

    megabytes: Annotated[int, Range(at_least=1)] = 1600
    """The size of the state in megabytes."""
    repeats: Annotated[int, Range(at_least=1)] = 3
    """The number of timed rounds."""
    loop_s: Annotated[float, Range(above=0)] = 1.0
    """The loop is timed for this many seconds before each save."""
    device: str | None = None
    """The device that holds the state, cpu or cuda. The default is cuda where there is one."""
    json: str | None = None
    """Also write the report to this file."""


def run(options: Options) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    device = pick_device(options.device)
    machine = describe_machine(device)
    state = {
        f"weight {number}": torch.randn(2**18, device=device)
        for number in range(max(1, round(options.megabytes / 1.048576)))
    }
    size = sum(tensor.nbytes for tensor in state.values())
    before = peak_memory_bytes()
    fresh = in_turns({"": partial(to_host, state)}, repeats=options.repeats, device=device)[""]
    copy = to_host(state)
    again = in_turns({"": partial(to_host, state, copy)}, repeats=options.repeats, device=device)[""]
    del copy
    rows = [_row("copy, fresh memory (blocks)", fresh), _row("copy, over the last one (blocks)", again)]
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(folder, keep_last=1, milestone_steps=0, report=failures.append)

        def save() -> None:
            checkpointer.save(1, state)
            checkpointer.wait()

        rows.append(_row("whole save, waited for", in_turns({"": save}, repeats=options.repeats)[""]))
        lost = [_lost(checkpointer, state, options.loop_s, device) for _ in range(options.repeats)]
    if failures:
        raise RuntimeError(failures[0])
    seconds, shares = (tuple(column) for column in zip(*lost, strict=True))
    rows.append(_row("lost by a loop of small steps while it is written", Timing(seconds)))
    return Report(
        machine,
        [
            Table(
                "Checkpoint",
                rows,
                [
                    f"{size / 1e6:.0f} MB of state on {device.type}; peak memory {before / 1e6:.0f} MB before, "
                    f"{peak_memory_bytes() / 1e6:.0f} MB after.",
                    "The loop ran at "
                    f"{statistics.median(shares):.0%} of its speed without a save, in the time that the write took.",
                ],
            )
        ],
    )


def _row(part: str, timing: Timing) -> dict[str, Any]:
    cpu = statistics.median(timing.cpu_seconds) if timing.cpu_seconds else None
    return {"part": part, **timing.cells(), "CPU s": cpu}


def _lost(
    checkpointer: Checkpointer, state: dict[str, Any], loop_s: float, device: torch.device
) -> tuple[float, float]:
    """Seconds that small steps took longer beside the background part of a save, and their share of the full speed."""
    over = threading.Event()
    threading.Timer(loop_s, over.set).start()
    each_s, _ = _loop_until(over, device)
    checkpointer.save(1, state)
    written = threading.Event()

    def wait() -> None:
        checkpointer.wait()
        written.set()

    threading.Thread(target=wait).start()
    beside_s, steps = _loop_until(written, device)
    return steps * (beside_s - each_s), each_s / beside_s


def _loop_until(end: threading.Event, device: torch.device) -> tuple[float, int]:
    """Seconds of a small step, and how many there were until `end`."""
    matrix = torch.randn(64, 64, device=device) / 64
    begin, steps = time.perf_counter(), 0
    while not end.is_set() or not steps:
        for _ in range(100):
            matrix = torch.tanh(matrix @ matrix)
        wait_for(device)
        steps += 1
    return (time.perf_counter() - begin) / steps, steps
