"""How long a checkpoint holds up training: the copy to host memory, and the write in the background.

A state of the size of a paper-width Stage-II run with its optimizers. "fresh" is a first save, whose copy takes fresh
memory; "again" is every later one.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from stackgan_dist.benchmarks.machine import describe_machine, peak_memory_bytes
from stackgan_dist.benchmarks.report import Report, Table
from stackgan_dist.benchmarks.timing import in_turns
from stackgan_dist.training.checkpoint import Checkpointer, to_host


@dataclass(frozen=True)
class Options:
    """How much, and how often."""

    megabytes: int = 1600
    """Size of the state."""
    repeats: int = 3
    """Timed rounds."""
    json: str | None = None
    """File to write the report to."""


def run(options: Options) -> Report:
    """Measure."""
    torch.set_num_threads(1)
    machine = describe_machine()
    state = {f"weight {number}": torch.randn(2**18) for number in range(max(1, round(options.megabytes / 1.048576)))}
    size = sum(tensor.nbytes for tensor in state.values())
    before = peak_memory_bytes()
    rows: list[dict[str, Any]] = []
    fresh = in_turns({"fresh": partial(to_host, state)}, repeats=options.repeats)["fresh"]
    rows.append({"part": "copy, fresh memory (blocks)", **fresh.cells()})
    copy = to_host(state)
    again = in_turns({"again": partial(to_host, state, copy)}, repeats=options.repeats)["again"]
    rows.append({"part": "copy, over the last one (blocks)", **again.cells()})
    del copy
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        checkpointer = Checkpointer(folder, keep_last=1, milestone_steps=0, report=failures.append)

        def save() -> None:
            checkpointer.save(1, state)
            checkpointer.wait()

        rows.append({"part": "whole save, waited for", **in_turns({"": save}, repeats=options.repeats)[""].cells()})
    if failures:
        raise RuntimeError(failures[0])
    peaks = f"{before / 1e6:.0f} MB before, {peak_memory_bytes() / 1e6:.0f} MB after"
    note = f"{size / 1e6:.0f} MB of state; peak memory {peaks}."
    return Report(machine, [Table("Checkpoint", rows, [note])])
