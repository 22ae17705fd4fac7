"""Features of numbered pictures as blocks of rows that ranks share: each holds its own, and all see every one in turn.

What a block holds and which shape it has depend on the numbers of its pictures alone, so what is computed of pairs of
blocks is the same on any number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores.kernel import FirstFeatures

BLOCK = 1_000
"""Rows of a block: a pair of them has a million distances, 8 MB."""


class SharedFeatures:
    """The features of the first pictures of a set; rank r has the blocks r, r + world_size, ...

    A rank holds count / world_size rows and sees one more block at a time.

    Args:
        features: what this rank has of them, by number; all ranks' together are all.
        ranks: all of them take part in everything here.
        count: of the pictures, from the first on; None: all that are kept.
        unit: divide every row by its length.
    """

    def __init__(
        self,
        features: FirstFeatures,
        ranks: Ranks,
        *,
        count: int | None = None,
        unit: bool = False,
        block: int = BLOCK,
    ) -> None:
        self.count, self.width, self.block = features.count if count is None else count, features.width, block
        self._ranks = ranks
        self._own: list[tuple[int, Tensor]] = []
        for number in range(-(-self.count // block)):
            # Each row is on one rank and zero on the others: the sum is exact.
            rows = features.rows(number * block, min((number + 1) * block, self.count))
            sum_over_ranks(rows, ranks)
            if unit:
                rows = torch.nn.functional.normalize(rows, dim=1)
            if number % ranks.world_size == ranks.rank:
                self._own.append((number, (rows if unit else rows.float()).to(ranks.device)))

    def __len__(self) -> int:
        """Blocks."""
        return -(-self.count // self.block)

    def own(self) -> list[tuple[int, Tensor]]:
        """This rank's blocks: (number, rows (n, width))."""
        return self._own

    def every(self) -> Iterator[tuple[int, Tensor]]:
        """All blocks in order, on every rank."""
        mine = dict(self._own)
        for number in range(len(self)):
            rows = mine.get(number)
            if self._ranks.distributed:
                size = min(self.block, self.count - number * self.block)
                sent = torch.zeros(size, self.width, dtype=torch.float64, device=self._ranks.device)
                if rows is not None:
                    sent += rows
                sum_over_ranks(sent, self._ranks)
                rows = sent
            assert rows is not None
            yield number, rows

    def gathered(self, found: Iterable[tuple[int, Tensor]], width: int) -> Tensor:
        """(count, width), float64, on the CPU of every rank: what the ranks `found` for the rows of their blocks."""
        whole = torch.zeros(self.count, width, dtype=torch.float64)
        for number, rows in found:
            begin = number * self.block
            whole[begin : begin + len(rows)] = rows.cpu()
        sum_over_ranks(whole, self._ranks)
        return whole
