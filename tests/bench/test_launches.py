"""What a profile of a step is told by."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from stackgan_dist.bench.launches import busy_share, count_launches, launches_on_a_device


def test_the_busy_share_is_of_what_is_covered_by_at_least_one_kernel() -> None:
    assert busy_share([(0, 4), (1, 3), (2, 6), (8, 10)]) == pytest.approx(0.8)
    assert busy_share([]) == 0


def test_on_a_cpu_the_operations_that_are_called_are_counted() -> None:
    matrix = torch.ones(40, 40)

    def step() -> None:
        torch.tanh(matrix @ matrix).sum()  # mm, tanh, sum: what they call in turn does not count

    found = count_launches(step, torch.device("cpu"), steps=2)
    assert found.from_host == 3
    assert {name for name, _ in found.longest} == {"aten::matmul", "aten::tanh", "aten::sum"}


def test_on_a_device_kernels_count_and_the_ranges_around_them_do_not() -> None:
    def event(name: str, device: DeviceType, begin: int, end: int, *, named: bool = False) -> FunctionEvent:
        return FunctionEvent(
            id=0, name=name, thread=0, start_us=begin, end_us=end, device_type=device, is_user_annotation=named
        )  # fmt: skip

    host, cuda = DeviceType.CPU, DeviceType.CUDA
    events = [
        event("cudaLaunchKernel", host, 0, 1), event("cudaLaunchKernel", host, 1, 2), event("aten::mm", host, 0, 2),
        event("gemm", cuda, 0, 1000), event("relu", cuda, 5000, 6000), event("gemm", cuda, 9000, 10_000),
        event("Optimizer.step", cuda, 0, 10_000, named=True),
    ]  # fmt: skip
    found = launches_on_a_device(events, steps=2)
    assert (found.from_host, found.kernels, found.busy) == (1, 1.5, pytest.approx(0.3))
    assert found.longest == (("gemm", 1.0), ("relu", 0.5))
    with pytest.raises(RuntimeError, match="saw no kernel"):
        launches_on_a_device(events[:3], steps=2)
