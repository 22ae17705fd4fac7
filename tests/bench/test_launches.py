"""What a profile of a step is told by."""

from __future__ import annotations

import pytest
import torch

from stackgan_dist.bench.launches import busy_share, count_launches


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
