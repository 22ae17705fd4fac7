"""Which rank holds the others up."""

from __future__ import annotations

import pytest
import torch

from stackgan_dist.runs.probe import Probe
from stackgan_dist.runs.stragglers import RankNumbers, slowest
from stackgan_dist.runs.utilisation import peak_flops, peak_memory_of

CPU = torch.device("cpu")


def _ranks(*numbers: tuple[float, float]) -> list[RankNumbers]:
    return [RankNumbers(wait, probe, 1e9) for wait, probe in numbers]


def test_a_rank_that_waits_for_data() -> None:
    found = slowest(_ranks((0.0, 1e-3), (0.3, 1e-3), (0.01, 1.02e-3)))
    assert (found.rank, found.data_wait) == (1, 0.3)
    assert found.lag == pytest.approx(0.3)
    assert found.describe("node7") == (
        "rank 1 on node7 holds up 30%: waits for data 30%, computes 1.00 times as long as the median"
    )


def test_a_rank_that_computes_slowly() -> None:
    found = slowest(_ranks((0.1, 1e-3), (0.0, 1e-3), (0.0, 2e-3)))
    assert (found.rank, found.lag, found.times_median) == (2, pytest.approx(0.5), pytest.approx(2.0))


def test_alike_ranks_are_not_worth_a_word() -> None:
    found = slowest(_ranks((0.01, 1e-3), (0.02, 1.05e-3)))
    assert found.lag < 0.1
    assert found.describe("node") == ""


def test_without_a_probe_data_alone_tell() -> None:
    assert slowest(_ranks((0.0, 0.0), (0.2, 0.0)))[:2] == (1, pytest.approx(0.2))


def test_the_probe_measures_now_and_then_and_no_random_number_is_drawn() -> None:
    before = torch.get_rng_state()
    probe = Probe(CPU)
    assert probe.lap() == 0.0
    for _ in range(9):
        probe.step()
    assert 0 < probe.lap() < 1
    assert probe.lap() == 0.0
    assert torch.equal(torch.get_rng_state(), before)


def test_the_peak_is_that_of_a_processor() -> None:
    single, double = peak_flops(CPU, torch.float32), peak_flops(CPU, torch.float64)
    assert 1e9 < double < single < 1e13
    assert peak_memory_of(CPU) > 50e6
