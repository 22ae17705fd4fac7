"""The plan: which sample stands in which row of which step. Pure arithmetic, no I/O, nothing distributed.

An epoch permutes the shards and, inside each, the samples. The resulting sequence of N samples is cut into B equal
lanes of floor(N / B); row i of every batch walks lane i. So every rank gets the same number of batches, touches only
the shards of its own lanes, nothing repeats within an epoch, and the whole position of a run is one integer, the
step. The fewer than B samples that are left over differ from epoch to epoch.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Permutation, Stream, permutation

_PERMUTATIONS_KEPT = 512
_EPOCHS_KEPT = 2
"""Looking ahead across the end of an epoch goes to and fro between two."""


def rows_of_rank(batch_size: int, rank: int, world_size: int) -> range:
    """The rows of the global batch that `rank` works on: contiguous, and equal in number up to one."""
    return range(rank * batch_size // world_size, (rank + 1) * batch_size // world_size)


class Plan:
    """The order in which a run reads its samples.

    Args:
        shard_samples: number of samples in each shard, in the order of the index.
        seed: the run's seed.
        batch_size: rows B of the global batch.

    Raises:
        UserError: the data set holds fewer samples than one batch.
    """

    def __init__(self, shard_samples: Sequence[int], seed: int, batch_size: int) -> None:
        self._sizes = np.asarray(shard_samples, dtype=np.int64)
        self.samples = int(self._sizes.sum())
        self.seed = seed
        self.batch_size = batch_size
        self.steps_per_epoch = self.samples // batch_size
        """Steps in an epoch; also the length of a lane."""
        if self.steps_per_epoch == 0:
            raise UserError(
                f"the data set holds {self.samples} samples, fewer than one global batch of {batch_size}; "
                "lower --training.batch-size or use a larger set"
            )
        self._epoch = -1
        self._order = self._starts = np.empty(0, dtype=np.int64)
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._permutations: OrderedDict[tuple[int, int], Permutation] = OrderedDict()
        self._kept = _PERMUTATIONS_KEPT

    def epoch(self, step: int) -> int:
        """The epoch that `step` belongs to, from 0."""
        return step // self.steps_per_epoch

    def locate(self, step: int, rows: Sequence[int]) -> list[tuple[int, int]]:
        """(shard, sample within the shard) of every row in `rows` of global batch `step`."""
        self._enter(self.epoch(step))
        self._kept = max(self._kept, len(rows))  # each row walks a shard of its own
        positions = np.asarray(rows) * self.steps_per_epoch + step % self.steps_per_epoch
        places = np.searchsorted(self._starts, positions, side="right") - 1
        offsets = positions - self._starts[places]
        shards = self._order[places]
        return [
            (shard, self._permutation(shard)[offset])
            for shard, offset in zip(shards.tolist(), offsets.tolist(), strict=True)
        ]

    def shards_ahead(self, step: int, steps: int, rows: Sequence[int]) -> list[int]:
        """Shards that `rows` read in steps [step, step + steps), each once, in the order of first need.

        `steps` beyond the end of the epoch of `step` are looked up in the next epoch, at most one.
        """
        first_need: dict[int, int] = {}
        left_in_epoch = self.steps_per_epoch - step % self.steps_per_epoch
        spans = [(step, min(steps, left_in_epoch))]
        if steps > left_in_epoch:
            spans.append((step + left_in_epoch, min(steps - left_in_epoch, self.steps_per_epoch)))
        for start, length in spans:
            self._enter(self.epoch(start))
            begins = np.asarray(rows) * self.steps_per_epoch + start % self.steps_per_epoch
            firsts = np.searchsorted(self._starts, begins, side="right") - 1
            lasts = np.searchsorted(self._starts, begins + length - 1, side="right") - 1
            spans_of_lanes = zip(begins.tolist(), firsts.tolist(), lasts.tolist(), strict=True)
            for begin, first, last in spans_of_lanes:
                for place in range(first, last + 1):
                    shard = int(self._order[place])
                    need = start + (max(0, int(self._starts[place]) - begin) if place > first else 0)
                    if need < first_need.get(shard, need + 1):
                        first_need[shard] = need
        return sorted(first_need, key=lambda shard: (first_need[shard], shard))

    def reading(
        self, epoch: int, rows: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """What the lanes of `rows` read in `epoch`: shard, and the steps [begin, end) of the epoch in which it is read.

        A shard comes once for each lane that reaches into it.
        """
        self._enter(epoch)
        lanes = np.asarray(rows) * self.steps_per_epoch
        firsts = np.searchsorted(self._starts, lanes, side="right") - 1
        lasts = np.searchsorted(self._starts, lanes + self.steps_per_epoch - 1, side="right") - 1
        counts = lasts - firsts + 1
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        places, lane = np.repeat(firsts, counts) + within, np.repeat(lanes, counts)
        shards = self._order[places]
        begins = np.maximum(self._starts[places] - lane, 0)
        ends = np.minimum(self._starts[places] + self._sizes[shards] - lane, self.steps_per_epoch)
        return shards, begins, ends

    def _enter(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        self._epoch = epoch
        if epoch not in self._epochs:
            order = permutation(len(self._sizes), self.seed, Stream.SHARD_ORDER, epoch)
            sizes = self._sizes[order]
            if len(self._epochs) == _EPOCHS_KEPT:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = (order, np.cumsum(sizes) - sizes)
        self._order, self._starts = self._epochs[epoch]

    def _permutation(self, shard: int) -> Permutation:
        key = (self._epoch, shard)
        found = self._permutations.get(key)
        if found is not None:
            self._permutations.move_to_end(key)
            return found
        samples = int(self._sizes[shard])
        self._permutations[key] = Permutation(samples, self.seed, Stream.SAMPLE_ORDER, self._epoch, shard)
        if len(self._permutations) > self._kept:
            self._permutations.popitem(last=False)
        return self._permutations[key]
