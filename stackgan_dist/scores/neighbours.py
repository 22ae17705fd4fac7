"""Precision, recall, density, coverage and nearness to training pictures: scores by nearest neighbours of features.

Every set of features comes in numbered blocks of rows (blocks.py). Distances are taken block by block, so memory is
bounded by a block, and each rank has the rows of its own blocks: the same products of the same shapes on any number of
ranks. Distances are squared and float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stackgan_dist.scores.blocks import SharedFeatures


@dataclass(frozen=True)
class Neighbourhoods:
    """What each picture says about the other set; their means are the four scores.

    A ball around a picture reaches to its k-th nearest neighbour in its own set.
    """

    precision: Tensor
    """(generated,): 1 where a generated picture lies in the ball of some real one (Kynkaanniemi et al., arXiv
    1904.06991, equation 2)."""
    recall: Tensor
    """(real,): 1 where a real picture lies in the ball of some generated one (the same, equation 3)."""
    density: Tensor
    """(generated,): real balls that a generated picture lies in, divided by k (Naeem et al., arXiv 2002.09797,
    equation 4)."""
    coverage: Tensor
    """(real,): 1 where some generated picture lies in a real one's ball (the same, equation 5)."""


def neighbourhoods(
    generated: SharedFeatures, real: SharedFeatures, of_manifold: int = 3, of_density: int = 5
) -> Neighbourhoods:
    """The four, with balls of `of_manifold` neighbours for precision and recall, `of_density` for the other two.

    Each side must have more pictures than neighbours. All ranks take part, and all get the same.
    """
    deepest = max(of_manifold, of_density)
    around_real = nearest(real, real, deepest, among_themselves=True)
    around_generated = nearest(generated, generated, of_manifold, among_themselves=True)
    real_balls, real_wide = around_real[:, of_manifold - 1], around_real[:, of_density - 1]
    inside_real = _balls_around(generated, real, real_balls)
    inside_wide = _balls_around(generated, real, real_wide)
    inside_generated = _balls_around(real, generated, around_generated[:, of_manifold - 1])
    closest = nearest(real, generated, 1)[:, 0]
    return Neighbourhoods(
        (inside_real > 0).double(),
        (inside_generated > 0).double(),
        inside_wide / of_density,
        (closest <= real_wide).double(),
    )


def nearest(queries: SharedFeatures, others: SharedFeatures, k: int, *, among_themselves: bool = False) -> Tensor:
    """Squared distances (queries, k), nearest first, of each row of `queries` to the k nearest rows of `others`.

    `among_themselves`: both are the same set, and a row is no neighbour of itself. ValueError for fewer rows than k.
    """
    if others.count - among_themselves < k:
        raise ValueError(f"{k} neighbours among {others.count} pictures")
    own = queries.own()
    best = {number: rows.new_empty(len(rows), 0, dtype=torch.float64) for number, rows in own}
    for column, block in others.every():
        for number, rows in own:
            distances = squared_distances(rows, block)
            if among_themselves and number == column:
                distances.fill_diagonal_(torch.inf)
            both = torch.cat([best[number], distances], dim=1)
            best[number] = both.topk(min(k, both.shape[1]), dim=1, largest=False).values
    return queries.gathered(best.items(), k)


def _balls_around(queries: SharedFeatures, centres: SharedFeatures, radii: Tensor) -> Tensor:
    """(queries,): in how many balls of squared `radii` (centres,) around `centres` each row of `queries` lies."""
    own = queries.own()
    counts = {number: torch.zeros(len(rows), 1, dtype=torch.float64, device=rows.device) for number, rows in own}
    for column, block in centres.every():
        begin = column * centres.block
        reach = radii[begin : begin + len(block)].to(block.device)
        for number, rows in own:
            counts[number] += (squared_distances(rows, block) <= reach).sum(dim=1, keepdim=True)
    return queries.gathered(counts.items(), 1)[:, 0]


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(M, N), float64, of the rows of x (M, width) and y (N, width)."""
    x, y = x.double(), y.double()
    squares = x.square().sum(1, keepdim=True) + y.square().sum(1)
    return (squares - 2 * x @ y.T).clamp(min=0)


def nearer_share(distances: Tensor, reference: Tensor) -> Tensor:
    """(N,): the share of `reference` (M,) that is farther than each of `distances` (N,); what is equal counts half.

    Of distances to the nearest training picture, with those of held-out pictures as the reference, the mean is the
    probability that a picture is nearer than a held-out one (Mann and Whitney's statistic, as in Meehan et al., arXiv
    2004.05675): 0.5 where generated pictures are as near as new real ones, 1 where they are copies.
    """
    ordered = reference.sort().values
    below = torch.searchsorted(ordered, distances, right=False)
    up_to = torch.searchsorted(ordered, distances, right=True)
    return 1 - (below + up_to).double() / (2 * len(ordered))
