"""How different the pictures of one sentence are."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from stackgan_dist.scores.diversity import Diversity, measured, pairwise_distance, pixel_deviation


def test_pictures_that_are_all_alike_have_none() -> None:
    one = torch.rand(3, 1, 3, 8, 8) * 2 - 1
    torch.testing.assert_close(pixel_deviation(one.expand(3, 5, 3, 8, 8)), torch.zeros(3, dtype=torch.float64))


def test_its_square_is_half_of_the_mean_squared_difference_of_two_pictures() -> None:
    # Where every pixel differs alike, the mean over pixels is that of any of them.
    shades = torch.tensor([-0.5, 0.1, 0.3, 0.9], dtype=torch.float64)
    pictures = shades[None, :, None, None, None].expand(1, 4, 3, 8, 8)
    squares = [(a - b).square() for a, b in combinations(shades, 2)]
    torch.testing.assert_close(pixel_deviation(pictures)[0].square(), torch.stack(squares).mean() / 2)


def test_the_distance_of_a_pair_is_the_mean_over_all_pairs() -> None:
    from scipy.spatial.distance import pdist

    features = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    reference = [pdist(group.double().numpy()).mean() for group in features]
    assert pairwise_distance(features).tolist() == pytest.approx(reference, rel=1e-12)


def test_groups_are_measured_in_their_order_and_parts_as_the_whole() -> None:
    images = torch.rand(12, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = measured(images, 3)
    torch.testing.assert_close(torch.cat([measured(images[:3], 3), measured(images[3:], 3)]), whole)
    assert Diversity(whole).mean == pixel_deviation(images.unflatten(0, (-1, 3))).mean()
    assert Diversity(whole[:0]).mean is None
