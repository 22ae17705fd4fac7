"""The parts of the check on one GPU. Each notes what it measured as soon as it has it; check.py runs them.

On a CPU, and `tiny`, they run small, and skip what needs a GPU by raising SkippedError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import jobs
import steps
import torch
from context import Context


def versions(context: Context) -> None:
    context.note("torch", torch.__version__)
    context.note("python", sys.version.split()[0])
    if context.device.type == "cuda":
        context.note("gpu", torch.cuda.get_device_name(context.device))
        context.note("cuda", torch.version.cuda)


PARTS: dict[str, tuple[Callable[[Context], None], int]] = {
    "versions": (versions, 15),
    "float64": (steps.float64, 45),
    "syncs": (steps.syncs, 35),
    "resume": (steps.resume, 45),
    "trainings": (jobs.trainings, 75),
    "devices": (steps.devices, 15),
    "ranks": (jobs.ranks, 70),
    "captured": (steps.captured, 40),
    "curves": (steps.curves, 30),
    "bench": (jobs.bench, 60),
    "checkpoint": (jobs.checkpoint, 60),
    "set": (steps.device_set, 20),
    "too many": (jobs.too_many_ranks, 20),
    "scores": (jobs.scores, 30),
    "flowers": (jobs.flowers, 120),
}
"""Name -> the part, and after how many seconds it is ended."""
