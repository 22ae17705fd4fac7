"""Precision, recall, density and coverage against their definitions, loop by loop; nearness; a real group of ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from distributed.forked import run_forked
from scores.one_rank import ALONE, shared
from torch import Tensor

from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.scores.blocks import SharedFeatures
from stackgan_dist.scores.cmmd import gaussian_discrepancy
from stackgan_dist.scores.kernel import FirstFeatures
from stackgan_dist.scores.neighbours import nearer_share, nearest, neighbourhoods


def some(count: int, width: int, seed: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def by_definition(fake: Tensor, real: Tensor, k: int, wide: int) -> tuple[float, float, float, float]:
    """In numpy, picture by picture, as prdc (Naeem et al.) and Kynkaanniemi et al. define them."""
    x, y = real.double().numpy(), fake.double().numpy()

    def radius(points: np.ndarray, i: int, nearest: int) -> float:
        return float(np.sort(np.linalg.norm(points - points[i], axis=1))[nearest])  # the first is itself

    def within(point: np.ndarray, points: np.ndarray, nearest: int) -> int:
        return sum(np.linalg.norm(point - p) <= radius(points, i, nearest) for i, p in enumerate(points))

    precision = np.mean([within(point, x, k) > 0 for point in y])
    recall = np.mean([within(point, y, k) > 0 for point in x])
    density = np.mean([within(point, x, wide) / wide for point in y])
    coverage = np.mean([np.linalg.norm(y - p, axis=1).min() <= radius(x, i, wide) for i, p in enumerate(x)])
    return float(precision), float(recall), float(density), float(coverage)


@pytest.mark.parametrize("block", [7, 100])
def test_they_equal_their_definitions(block: int) -> None:
    fake, real = 0.7 * some(33, 4, 1) + 0.9, some(41, 4, 2)
    found = neighbourhoods(shared(fake, block=block), shared(real, block=block))
    ours = [each.mean().item() for each in (found.precision, found.recall, found.density, found.coverage)]
    assert ours == pytest.approx(by_definition(fake, real, 3, 5), rel=1e-12)
    assert min(ours) > 0.2
    assert max(ours[0], ours[1], ours[3]) < 1


def test_the_same_pictures_and_far_ones() -> None:
    real = some(30, 3, 3)
    same = neighbourhoods(shared(real), shared(real))
    assert (same.precision.mean(), same.recall.mean(), same.coverage.mean()) == (1, 1, 1)
    far = neighbourhoods(shared(real + 100), shared(real))
    assert not any(each.any() for each in (far.precision, far.recall, far.density, far.coverage))


def test_too_few_pictures_have_no_neighbours() -> None:
    with pytest.raises(ValueError, match="5 neighbours among 5 pictures"):
        neighbourhoods(shared(some(9, 2, 0)), shared(some(5, 2, 1)))


def test_the_nearest_are_those_of_a_sort() -> None:
    queries, others = some(9, 5, 4), some(23, 5, 5)
    found = nearest(shared(queries, block=4), shared(others, block=5), 3)
    reference = torch.cdist(queries.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(found.sqrt(), reference.sort(1).values[:, :3], rtol=1e-10, atol=1e-10)


def test_nearer_than_held_out_is_the_statistic_of_mann_and_whitney() -> None:
    from scipy.stats import mannwhitneyu

    ours, held_out = some(40, 1, 6)[:, 0].round(decimals=1), some(50, 1, 7)[:, 0].round(decimals=1)  # with ties
    reference = mannwhitneyu(held_out.numpy(), ours.numpy()).statistic / (40 * 50)
    assert nearer_share(ours, held_out).mean().item() == pytest.approx(reference, rel=1e-12)
    assert nearer_share(torch.zeros(3), torch.ones(4)).tolist() == [1, 1, 1]


def test_the_gaussian_kernel_equals_the_published_code() -> None:
    fake, real = some(20, 6, 20), some(31, 6, 31)

    def kernel(a: Tensor, b: Tensor) -> float:  # distance.py of google-research/cmmd, in its own terms
        a, b = (torch.nn.functional.normalize(side.double(), dim=1) for side in (a, b))
        squares = -2 * a @ b.T + (a @ a.T).diagonal()[:, None] + (b @ b.T).diagonal()[None]
        return torch.exp(-1 / (2 * 10**2) * squares).mean().item()

    reference = 1000 * (kernel(fake, fake) + kernel(real, real) - 2 * kernel(fake, real))
    found = gaussian_discrepancy(shared(fake, unit=True), shared(real, unit=True), ALONE)
    assert found == pytest.approx(reference, rel=1e-9)


FAKE, REAL = 0.7 * some(50, 4, 8) + 0.4, some(61, 4, 9)


def _measured_by_ranks(out: str) -> None:
    """On a rank: it has every other of its batches of five pictures."""
    with process_group(60) as ranks:
        sides = []
        for features in (FAKE, REAL):
            first = FirstFeatures(len(features), 4)
            for number, batch in enumerate(torch.arange(len(features)).split(5)):
                if number % ranks.world_size == ranks.rank:
                    first.add(batch, features[batch])
            sides.append(SharedFeatures(first, ranks, block=7))
        found = neighbourhoods(*sides)
        values = [*vars(found).values(), torch.tensor([gaussian_discrepancy(*sides, ranks)])]
        if ranks.rank == ranks.world_size - 1:
            torch.save(values, out)


def test_any_number_of_ranks_finds_the_same(tmp_path: Path) -> None:
    alone, three = tmp_path / "1.pt", tmp_path / "3.pt"
    _measured_by_ranks(str(alone))
    run_forked(_measured_by_ranks, 3, str(three), log=tmp_path / "log")
    ours, theirs = torch.load(alone), torch.load(three)
    assert all(torch.equal(one, other) for one, other in zip(ours[:4], theirs[:4], strict=True))
    assert ours[4].item() == pytest.approx(theirs[4].item(), rel=1e-12)
