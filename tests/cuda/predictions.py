"""What was predicted for one H100 by counting operations and bytes, before anything was run on one.

A part of the check (steps.py, jobs.py) measures what is named by `key`.
"""

from __future__ import annotations

from typing import NamedTuple


class Prediction(NamedTuple):
    """A number, and the range that it was predicted to be in."""

    key: str
    what: str
    low: float | None
    """None: no lower bound."""
    high: float | None
    unit: str = ""

    def holds(self, measured: float) -> bool:
        """Whether the prediction was right, or better than that was needed."""
        return (self.low is None or measured >= self.low) and (self.high is None or measured <= self.high)

    def __str__(self) -> str:
        if self.low is not None and self.high is not None:
            return f"{self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if self.low is not None else f"at most {self.high:g}"


EQUAL = 1e-7
"""Rounding alone moves weights by 3e-10 in three steps (test_check.py); a wrong step moves them by 1e-4."""

PREDICTIONS = (
    Prediction("float64/families", "step in float64 against the CPU, all families, 3 steps", None, EQUAL),
    Prediction("float64/paper width", "the same at the paper's width, 2 steps", None, EQUAL),
    Prediction("syncs", "waits of the host in 20 steps", None, 0),
    Prediction("stage 1, off/kernels", "kernels of a Stage-I step", 600, 900),
    Prediction("stage 1, off/host ms", "host time of a Stage-I step, launched one by one", 5.5, 8, "ms"),
    Prediction("stage 1, on/launches", "launches of a captured Stage-I step, with its report and average", None, 40),
    Prediction("stage 2, off/kernels", "kernels of a Stage-II step", 950, 1400),
    Prediction("resume/bits", "runs whose resumption has the same bits, deterministic (fp32, bf16)", 2, None, "of 2"),
    Prediction("resume/deterministic", "time of a deterministic step over another one", None, 1.2, "times"),
    Prediction("markers", "a training, SIGTERM, started again: PREEMPTED, then DONE, each step once", 3, None, "of 3"),
    Prediction("devices/to cuda", "a checkpoint CPU to CUDA, next step, float64", None, EQUAL),
    Prediction("devices/to cpu", "a checkpoint CUDA to CPU, next step, float64", None, EQUAL),
    Prediction("ranks/2", "2 ranks on one GPU through gloo against 1, float64", None, EQUAL),
    Prediction("captured/bits", "families whose captured step has the same bits (30 steps)", 2, None, "of 2"),
    Prediction("captured/64, off", "Stage-I at batch 64, launched one by one", 8_000, 12_000, "img/s"),
    Prediction("captured/64, on", "Stage-I at batch 64, captured", 21_000, 28_000, "img/s"),
    Prediction("captured/64, ms", "a captured Stage-I step at batch 64", 2.3, 3.0, "ms"),
    Prediction("captured/64, times", "captured over launched one by one at 64", 2, None, "times"),
    Prediction("captured/256, on", "Stage-I at batch 256, captured (aim)", 30_000, None, "img/s"),
    Prediction("captured/1024, on", "Stage-I at batch 1,024, captured (aim)", 40_000, None, "img/s"),
    Prediction("captured/stage 2, on", "Stage-II at batch 64, captured (aim)", 3_000, None, "img/s"),
    Prediction("curves/bf16", "bf16's mean losses from fp32's, over the spread of 3 seeds", None, 1, "times"),
    Prediction("curves/fp64", "fp32's mean losses from float64's, over the spread of 3 seeds", None, 1, "times"),
    Prediction("bench/1 at 64, share", "share of the measured peak, Stage-I at 64, captured", 0.2, 0.6),
    Prediction("checkpoint/again ms", "a later checkpoint of 1.6 GB holds training up", None, 100, "ms"),
    Prediction(
        "set/bits", "kinds of rows from the device's memory that are the loader's (1, 3, 4, 10 captions)", 4, None
    ),
    Prediction("set/host ms", "host time of 64 rows from the device's memory", None, 1.5, "ms"),
    Prediction("set/loader", "a loader process from memory, 76 pixels", 12_000, None, "img/s"),
    Prediction("too many/s", "2 ranks on one GPU by NCCL: one clear line, exit code 2", None, 10, "s"),
    Prediction("scores/difference", "Inception Score on CUDA from that on the CPU, relative", None, 1e-3),
)

NOT_ON_ONE_GPU = (
    "NCCL between devices; a group of its own for batch norm; a rank that fails or hangs under NCCL; InfiniBand. "
    "Predicted for 8 and 32 GPUs at batch 64: 19 k and 12 k img/s; at 64 rows each: 120 k and 290 k."
)
