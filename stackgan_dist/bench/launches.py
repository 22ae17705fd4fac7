"""How a step keeps its device busy: what the host launches, how much of the time kernels run, which take longest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from stackgan_dist.bench.timing import wait_for

_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
"""Calls of the host by which a device gets work; a graph is one."""
_NAMED = 3


@dataclass(frozen=True)
class Launches:
    """Of one step, a mean over a few."""

    from_host: float
    """Kernels, copies and graphs that the host launches; on a CPU the operations of torch that it calls."""
    kernels: float | None
    """That run on the device, those in graphs among them; None on a CPU."""
    busy: float | None
    """The share of the time in which at least one of them runs, from the first to the last; None on a CPU."""
    longest: tuple[tuple[str, float], ...]
    """Name and milliseconds of a step of the kernels, or operations, that take most of it."""


def count_launches(step: Callable[[], object], device: torch.device, steps: int = 5) -> Launches:
    """Profile `steps` calls of `step`, which has run before."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device.type == "cuda" else [])
    with profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
        wait_for(device)
    events = list(profiler.events() or [])
    if device.type != "cuda":
        called = [e for e in events if e.name.startswith("aten::") and not _within_torch(e)]
        return Launches(len(called) / steps, None, None, _longest(((e.name, e.cpu_time_total) for e in called), steps))
    return launches_on_a_device(events, steps)


def launches_on_a_device(events: Iterable[FunctionEvent], steps: int) -> Launches:
    """Of `steps` steps, from the events that CUDA's profiler saw; RuntimeError where it saw nothing of the device."""
    events = list(events)
    launched = sum(event.name.startswith(_LAUNCHES) for event in events if event.device_type == DeviceType.CPU)
    # A range of the host that has a name (record_function) spans its kernels, and what lies between them.
    ran = [event for event in events if event.device_type == DeviceType.CUDA and not event.is_user_annotation]
    if not ran:
        raise RuntimeError("the profiler saw no kernel; start again, or look at the versions of torch and CUDA")
    spans = sorted((event.time_range.start, event.time_range.end) for event in ran)
    longest = _longest(((event.name, event.time_range.elapsed_us()) for event in ran), steps)
    return Launches(launched / steps, len(ran) / steps, busy_share(spans), longest)


def busy_share(spans: Iterable[tuple[float, float]]) -> float:
    """Of the time from the first begin to the last end, what is covered by `spans`, sorted by their begins."""
    covered, first, until = 0.0, None, 0.0
    for begin, end in spans:
        if first is None:
            first = until = begin
        covered += max(0.0, end - max(begin, until))
        until = max(until, end)
    return 0.0 if first is None or until == first else covered / (until - first)


def _within_torch(event: FunctionEvent) -> bool:
    parent = event.cpu_parent
    return parent is not None and parent.name.startswith("aten::")


def _longest(timed: Iterable[tuple[str, float]], steps: int) -> tuple[tuple[str, float], ...]:
    total: Counter[str] = Counter()
    for name, microseconds in timed:
        total[name] += microseconds  # type: ignore[assignment]
    return tuple((name, microseconds / 1e3 / steps) for name, microseconds in total.most_common(_NAMED))
