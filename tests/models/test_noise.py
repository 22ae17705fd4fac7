"""Noise as it is read: what is drawn is a row that was read of late, and noise around it as far as it was unsure."""

from __future__ import annotations

import pytest
import torch
from distributed.tiny import tiny_model
from torch import Tensor

from stackgan_dist.distributed.gather import gather_rows
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig
from stackgan_dist.models.noise import NoiseAsRead
from stackgan_dist.models.outputs import Reading
from stackgan_dist.models.stage1 import Stage1Generator
from stackgan_dist.train.ema import MovingAverage

DIM = 3


def _z(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _two_clusters(rows: int, seed: int) -> Reading:
    """Numbers 0 and 1 both say which of two clusters it is; number 2 says nothing."""
    sign = _z(rows, seed)[:, :1].sign()
    mu = torch.cat([1.5 * sign, -sign, torch.zeros_like(sign)], dim=1)
    return Reading(mu, torch.tensor([0.25, 0.1, 1.0], dtype=torch.float64).log().expand(rows, DIM))


def test_before_anything_is_read_z_stays_as_it_is() -> None:
    assert torch.equal(NoiseAsRead(DIM).double()(_z(1_000)), _z(1_000))


def test_what_is_drawn_is_what_was_read_with_what_its_numbers_have_in_common() -> None:
    noise = NoiseAsRead(DIM).double()
    for step in range(64):
        noise.note(_two_clusters(16, step))
    drawn = noise(_z(20_000))
    left = drawn[:, 0] < 0
    assert 0.45 < left.double().mean() < 0.55
    assert torch.equal(left, drawn[:, 1] > 0)  # never one cluster by one number and another by the other
    for cluster, sign in ((left, -1), (~left, 1)):
        torch.testing.assert_close(
            drawn[cluster].mean(0), torch.tensor([1.5 * sign, -1.0 * sign, 0]).double(), atol=0.03, rtol=0
        )
        torch.testing.assert_close(drawn[cluster].std(0), torch.tensor([0.25, 0.1, 1.0]).double(), atol=0.03, rtol=0)
    ends = noise.float()(torch.tensor([[-40.0] * DIM, [40.0] * DIM]))
    assert torch.isfinite(ends).all()


def test_the_rows_that_were_read_last_are_kept_in_their_order() -> None:
    noise = NoiseAsRead(1).double()
    numbers = torch.arange(3_000, dtype=torch.float64)[:, None]
    for rows in [*numbers[:900].split(7), numbers[900:2_400], *numbers[2_400:].split(100)]:
        noise.note(Reading(rows, torch.zeros_like(rows)))
    assert torch.equal(noise.read[:, 0], numbers[-1_024:])
    assert (noise.read[:, 1] == 1).all()


@pytest.mark.parametrize("counts", [[3, 2], [0, 5], [2, 1, 2]])
def test_all_ranks_keep_the_rows_of_all_in_the_order_of_the_global_batch(counts: list[int]) -> None:
    reading = _two_clusters(5, 0)
    alone = NoiseAsRead(DIM).double()
    alone.note(reading)
    parts = [Reading(*pair) for pair in zip(*(values.split(counts) for values in reading), strict=True)]
    sent: list[Tensor] = []

    def send(part: Tensor) -> Tensor:
        sent.append(part)
        return part.expand(len(counts), -1)

    for part in parts:
        rank = NoiseAsRead(DIM).double()
        rank.of_all_ranks = lambda rows: gather_rows(rows, counts, send)
        rank.note(part)
    rank.of_all_ranks = lambda rows: gather_rows(rows, counts, lambda _: torch.stack(sent))
    rank.read.copy_(NoiseAsRead(DIM).read)
    rank.note(parts[0])
    assert torch.equal(rank.read, alone.read)


def test_a_moving_average_has_the_rows_themselves() -> None:
    network = Stage1Generator(tiny_model(noise_as_read=True), 6)
    average = MovingAverage(network, 1_000)
    assert network.noise is not None
    network.noise.note(Reading(torch.ones(2, 4), torch.zeros(2, 4)))
    network.project[0].weight.data += 1
    average.update(network, 100, 10)
    assert torch.equal(average.network.state_dict()["noise.read"], network.noise.read)
    assert not torch.equal(average.network.state_dict()["project.0.weight"], network.project[0].weight)


def test_it_is_part_of_a_stage1_that_asks_for_it() -> None:
    without, having = (set(Stage1Generator(tiny_model(noise_as_read=v), 6).state_dict()) for v in (False, True))
    assert having - without == {"noise.read"}
    with pytest.raises(UserError, match="Stage-II takes it over"):
        ModelConfig(stage=2, image_size=128, noise_as_read=True)
    with pytest.raises(UserError, match="gan-int-cls has none"):
        ModelConfig(family="gan-int-cls", noise_as_read=True)
