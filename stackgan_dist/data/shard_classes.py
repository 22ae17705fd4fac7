"""The classes of one shard's samples: mismatched texts are drawn from the shard at hand."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from stackgan_dist.errors import UserError
from stackgan_dist.randomness import pick


class ShardClasses:
    """Which samples of a shard are of another class than a given one.

    Args:
        shard: its name, for errors.
        names: the class of each sample, in the order of the tar; its key where the source knows no classes.
    """

    def __init__(self, shard: str, names: Sequence[str]) -> None:
        self._shard = shard
        self.names = list(names)
        """Class of each sample, as given."""
        classes = np.unique(self.names, return_inverse=True)[1]
        self._class_of: list[int] = classes.tolist()  # numbers mean nothing outside this shard
        # Of each class, how many samples of other classes come before each of its own.
        self._others_before = [
            (members - np.arange(len(members))).tolist()
            for members in (np.flatnonzero(classes == number) for number in range(classes.max(initial=-1) + 1))
        ]

    def __len__(self) -> int:
        return len(self.names)

    def other(self, sample: int, point: float) -> int:
        """A sample of this shard that is of another class than `sample`: the one that `point`, in (0, 1), stands for.

        Raises UserError when there is none.
        """
        before = self._others_before[self._class_of[sample]]
        others = len(self) - len(before)
        if others == 0:
            raise UserError(
                f"{self._shard} holds a single class, but matching-aware training needs texts of another one; "
                "pack the set again with more --samples-per-shard"
            )
        number = pick(point, others)
        return number + bisect_right(before, number)
