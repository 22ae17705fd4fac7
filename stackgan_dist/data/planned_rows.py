"""What a rank's rows of one step are to be made of, by the plan and the random numbers; no sample has been read.

So it serves whoever has the samples: the loader, which reads them from shards or from the host's memory, and a set in
the memory of a device.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.data.batch import BatchShape, rows_with_partner
from stackgan_dist.data.index import Index
from stackgan_dist.data.placement import View, place_in_view
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.rows import OF_ROWS, OF_TEXTS_BETWEEN, RowDraws
from stackgan_dist.data.shard_classes import ShardClasses
from stackgan_dist.models.config import Placement
from stackgan_dist.randomness import Stream, pick


class PlannedRows:
    """n rows of one step, of which m also draw a text between two.

    Args:
        index: of the data set.
        plan: which sample each row takes.
        shape: what the step wants.
        step: of the run.
        rows: of the global batch.
    """

    places: list[tuple[int, int]]
    """(shard, sample in it) of each row."""
    samples: NDArray[np.int64]
    """The same, (n, 2)."""
    crops: NDArray[np.int64]
    """Left and top of each row's crop, (n, 2)."""
    flips: NDArray[np.bool_]
    """Whether each row is mirrored, (n,)."""
    with_partner: list[int]
    """The m of the rows, counted from 0, that draw a text between two."""
    captions: NDArray[np.int64]
    """Which captions each text is the mean of, (n + m + n, captions per text): the rows' own, those of the partners,
    mismatched ones."""

    def __init__(self, index: Index, plan: Plan, shape: BatchShape, step: int, rows: Sequence[int]) -> None:
        self._shape, self._stored_size = shape, index.image_size
        self.places = plan.locate(step, rows)
        self.samples = np.array(self.places, np.int64).reshape(-1, 2)
        more = rows_with_partner(rows) if shape.interpolate else []
        self.with_partner = [rows.index(row) for row in more]
        self._own = RowDraws(plan.seed, step, rows, OF_ROWS)
        self._between = RowDraws(plan.seed, step, more, OF_TEXTS_BETWEEN) if more else None
        self.crops, self.flips = self._own.crops_and_flips(index.image_size - shape.image_size)
        self._choose_texts(index.captions_per_image)

    @property
    def texts(self) -> int:
        """n + m: the matching texts."""
        return len(self.places) + len(self.with_partner)

    def texts_of(self, n: int, classes: ShardClasses) -> Iterator[tuple[int, int]]:
        """The texts of the n-th row, whose shard has these `classes`: (place in `captions`, sample in the shard)."""
        _, sample = self.places[n]
        yield n, sample
        yield self.texts + n, classes.other(sample, self._wrong[n])
        if n in self._partner:
            place, point = self._partner[n]
            yield place, pick(point, len(classes))

    def place(self, n: int, meta: Mapping[str, Any], placement: Placement) -> NDArray[np.float32]:
        """Where the object is in what the n-th row sees of its picture, whose KEY.json is `meta`: `placement.shape`."""
        view = View.of_crop(self.crops[n], self._shape.image_size, self._stored_size, bool(self.flips[n]))
        return place_in_view(meta, placement, view)

    def with_partners(self, of_rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the rows have, (n, ...), and once more what those with a partner have, (n + m, ...)."""
        return np.concatenate([of_rows, of_rows[self.with_partner]]) if self.with_partner else of_rows

    def noise(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """z of each matching text, (n + m, noise_dim), and eps, (n + m, stages, condition_dim)."""
        shape = self._shape
        condition_dim = shape.stages * shape.condition_dim
        z, eps = self._own.gaussians({Stream.NOISE: shape.noise_dim, Stream.CONDITIONING: condition_dim})
        if self._between is not None:
            dims = {Stream.BETWEEN_NOISE: shape.noise_dim, Stream.BETWEEN_CONDITIONING: condition_dim}
            more_z, more_eps = self._between.gaussians(dims)
            z, eps = np.concatenate([z, more_z]), np.concatenate([eps, more_eps])
        return z, eps.reshape(len(eps), shape.stages, shape.condition_dim)

    def _choose_texts(self, available: int) -> None:
        of_captions = available, self._shape.captions_per_text
        own, wrong = self._own.captions((Stream.CAPTION, Stream.WRONG_CAPTION), *of_captions)
        self._wrong = self._own.points(Stream.WRONG_SAMPLE)
        self._partner: dict[int, tuple[int, float]] = {}  # n-th row -> place of its partner's text, and its point
        if self._between is not None:
            own = np.concatenate([own, *self._between.captions((Stream.PARTNER_CAPTION,), *of_captions)])
            points = zip(itertools.count(len(wrong)), self._between.points(Stream.PARTNER_SAMPLE), strict=False)
            self._partner = dict(zip(self.with_partner, points, strict=True))
        self.captions = np.concatenate([own, wrong])
