"""KID against torchmetrics, and the promises about ranks and memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from stackgan_dist.errors import UserError
from stackgan_dist.scores.kernel import FirstFeatures, KernelDistance, squared_discrepancy


class Flat(nn.Module):
    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_discrepancy_equals_torchmetrics() -> None:
    from torchmetrics.image.kid import KernelInceptionDistance  # seconds, which not every worker needs

    torch.manual_seed(0)
    real, fake = torch.rand(40, 6, dtype=torch.float64) * 3, torch.rand(40, 6, dtype=torch.float64) ** 2 * 3
    reference = KernelInceptionDistance(feature=Flat(), subsets=1, subset_size=40).set_dtype(torch.float64)
    reference.update(real, real=True)
    reference.update(fake, real=False)
    assert squared_discrepancy(real, fake).item() == pytest.approx(reference.compute()[0].item(), rel=1e-6)


def test_discrepancy_of_unequal_sides_equals_the_formula() -> None:
    torch.manual_seed(1)
    x, y = torch.rand(5, 3, dtype=torch.float64), torch.rand(8, 3, dtype=torch.float64) + 0.5

    def kernel(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    def within(z: Tensor) -> float:
        n = len(z)
        return sum(kernel(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    across = sum(kernel(a, b) for a in x for b in y) / 40
    assert squared_discrepancy(x, y).item() == pytest.approx(within(x) + within(y) - 2 * across, rel=1e-12)


def test_equal_distributions_are_at_zero_on_average() -> None:
    torch.manual_seed(2)
    found = torch.stack([squared_discrepancy(*torch.randn(2, 50, 4, dtype=torch.float64)) for _ in range(300)])
    assert abs(found.mean()) < 4 * found.std() / 300**0.5
    assert (found < 0).any()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_blocks_are_put_together_from_any_ranks(ranks: int) -> None:
    torch.manual_seed(3)
    features = torch.rand(30, 5)
    parts = [FirstFeatures(20, 5) for _ in range(ranks)]
    for rank, part in enumerate(parts):
        for batch in torch.arange(rank, 30, ranks).split(4):
            part.add(batch, features[batch])
    for begin in (0, 10):
        assert torch.equal(sum(part.rows(begin, begin + 10) for part in parts), features[begin : begin + 10].double())


def test_memory_does_not_grow_with_the_samples() -> None:
    kept = FirstFeatures(6, 3)
    for begin in range(0, 4000, 4):
        kept.add(torch.arange(begin, begin + 4), torch.rand(4, 3))
    assert sum(len(numbers) for numbers, _ in kept._kept) == 6


def test_spread_over_blocks() -> None:
    distance = KernelDistance.of_blocks(torch.tensor([1.0, 3.0]).double(), 7)
    assert (distance.mean, distance.std, distance.block, distance.per_block) == (2.0, 1.0, 7, (1.0, 3.0))
    assert math.isnan(KernelDistance.of_blocks(torch.tensor([1.0]), 7).std)
    with pytest.raises(UserError, match="NaN"):
        KernelDistance.of_blocks(torch.tensor([math.nan]), 7)
