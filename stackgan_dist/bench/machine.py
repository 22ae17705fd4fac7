"""The machine that a benchmark runs on: what it is and how much memory a process took."""

from __future__ import annotations

import platform
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch

from stackgan_dist.devices import default_device, usable_device
from stackgan_dist.machine import usable_cores
from stackgan_dist.ranges import Range

T = TypeVar("T")
Threads = Annotated[int, Range(at_least=1, at_most=1_024)]
"""CPU threads of torch."""


def describe_machine(device: torch.device | None = None) -> dict[str, Any]:
    """What a figure depends on: processor, threads, device, versions."""
    facts: dict[str, Any] = {
        "cpu": _cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device is not None and device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def describe_in_a_line(facts: dict[str, Any]) -> str:
    """`describe_machine` for the terminal."""
    return ", ".join(str(value) if name in ("cpu", "gpu") else f"{name} {value}" for name, value in facts.items())


def pick_device(name: str | None = None) -> torch.device:
    """The device called `name`, or cuda where there is one, else cpu; UserError when it is not there."""
    return usable_device(name or default_device())


def in_own_process(work: Callable[..., T], *arguments: Any) -> T:
    """`work(*arguments)` in a fresh process, for a peak of memory that is its own; both must be importable."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def _cpu_model() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
