"""The generator's moving average against its closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from stackgan_dist.train.ema import MovingAverage

BATCH = 10
FULL_LENGTH = 10**6
"""Images after which the half-life is no longer shortened."""


def _network(value: float = 0.0) -> nn.Linear:
    network = nn.Linear(3, 2).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(value)
    return network


def test_closed_form() -> None:
    half_life = 35.0
    torch.manual_seed(0)
    network = nn.Linear(3, 2).double()
    weights = [network.weight.detach().clone()]
    average = MovingAverage(network, half_life)
    for number in range(8):
        with torch.no_grad():
            network.weight.normal_()
        weights.append(network.weight.detach().clone())
        average.update(network, FULL_LENGTH + number * BATCH, BATCH)
    decay = 0.5 ** (BATCH / half_life)
    expected = decay**8 * weights[0] + sum((1 - decay) * decay ** (8 - k) * weights[k] for k in range(1, 9))
    torch.testing.assert_close(average.network.weight.data, expected, rtol=1e-12, atol=1e-12)


def test_after_a_half_life_half_of_a_weight_is_left() -> None:
    average = MovingAverage(_network(0.0), half_life_images=200)
    for _ in range(200 // BATCH):
        average.update(_network(1.0), FULL_LENGTH, BATCH)
    torch.testing.assert_close(average.network.weight.data, torch.full((2, 3), 0.5, dtype=torch.float64))


def test_a_young_run_s_half_life_is_a_twentieth_of_its_images() -> None:
    average, value = MovingAverage(_network(0.0), half_life_images=10_000), 0.0
    for images in (10, 20, 400, 100_000, 300_000):
        average.update(_network(1.0), images, BATCH)
        decay = 0.5 ** (BATCH / min(images / 20, 10_000))
        value = decay * value + (1 - decay)
        torch.testing.assert_close(average.network.weight.data, torch.full((2, 3), value, dtype=torch.float64))


def test_a_half_life_of_0_follows_the_network() -> None:
    network = _network(3.0)
    average = MovingAverage(_network(0.0), half_life_images=0)
    average.update(network, FULL_LENGTH, BATCH)
    assert torch.equal(average.network.weight, network.weight)


def test_batch_statistics_are_averaged_and_counters_copied() -> None:
    network = nn.BatchNorm1d(2)
    average = MovingAverage(network, half_life_images=BATCH)
    network(torch.tensor([[0.0, 10.0], [2.0, 10.0]]))
    average.update(network, FULL_LENGTH, BATCH)
    statistics = average.network.state_dict()
    torch.testing.assert_close(statistics["running_mean"], network.running_mean / 2)  # type: ignore[operator]
    assert statistics["num_batches_tracked"] == 1


def test_the_average_draws_and_neither_trains_nor_moves_with_the_network() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, 100)
    assert not average.network.training
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    with torch.no_grad():
        network[0].weight.add_(1.0)
    assert not torch.equal(average.network.state_dict()["0.weight"], network.state_dict()["0.weight"])
    assert network.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_type_is_kept(dtype: torch.dtype) -> None:
    network = nn.Linear(2, 2).to(dtype)
    average = MovingAverage(network, 100)
    average.update(network, FULL_LENGTH, BATCH)
    assert average.network.weight.dtype == dtype


def test_a_network_is_walked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    walks: list[nn.Module] = []
    walk = nn.Module.state_dict

    def counted(self: nn.Module, *args: Any, **options: Any) -> Any:
        walks.append(self)
        return walk(self, *args, **options)

    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = MovingAverage(network, 100.0)
    monkeypatch.setattr(nn.Module, "state_dict", counted)
    for number in range(3):
        network(torch.randn(4, 3))
        average.update(network, FULL_LENGTH + number * BATCH, BATCH)
    assert sum(one is network for one in walks) == 1
    assert average.network[1].num_batches_tracked == network[1].num_batches_tracked == 3  # type: ignore[index]
