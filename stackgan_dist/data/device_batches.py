"""A rank's rows, step by step, out of a set in the memory of its device: bit for bit those of the loader.

The host says which samples, crops and captions a row takes and draws its noise; the device gathers pixels and
embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.data.batch import Batch, BatchShape, joined, taken_apart
from stackgan_dist.data.device_set import DeviceSet
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.planned_rows import PlannedRows
from stackgan_dist.data.rows import caption_numbers
from stackgan_dist.data.text_means import embeddings_of, mean_texts
from stackgan_dist.data.text_pool import PoolChoice, TextPool


class DeviceBatches:
    """`batches[step]` is the batch of `rows` at `step`, on the device.

    Args:
        data: the set.
        plan: which sample each row takes.
        rows: of the global batch.
        shape: what a step wants.
        pool: where a step's pool of texts is drawn from, with the contrastive term.
    """

    def __init__(
        self, data: DeviceSet, plan: Plan, rows: Sequence[int], shape: BatchShape, pool: TextPool | None
    ) -> None:
        self._data, self._plan, self._rows, self._shape = data, plan, rows, shape
        self._draws = None if pool is None else pool.draws
        self._first = data.index.first

    def __getitem__(self, step: int) -> Batch:
        data, shape = self._data, self._shape
        planned = PlannedRows(data.index, self._plan, shape, step, self._rows)
        chosen = None if self._draws is None else self._draws.choose(step, shape.pool)
        numbers, crops, flips, captions, z, eps, samples, place, pool_captions, excluded = self._sent(
            self._first[planned.samples[:, 0]] + planned.samples[:, 1],
            planned.crops,
            planned.flips,
            self._caption_numbers(planned),
            *planned.noise(),
            planned.samples,
            self._places(planned),
            None if chosen is None else chosen.captions,
            None if chosen is None else self._excluded(planned, chosen),
        )
        text, wrong_text = mean_texts(embeddings_of(data.texts, captions), planned.texts, planned.with_partner)
        return Batch(
            images=seen(data.pixels, numbers, crops, flips, shape.image_size),
            text=text,
            wrong_text=wrong_text,
            z=z,
            eps=eps,
            samples=samples,
            place=place,
            excluded=excluded,
            pool_captions=pool_captions,
        )

    def _sent(self, *arrays: NDArray[np.generic] | None) -> tuple[Tensor, ...]:
        """The arrays on the device, in one copy; None where there is none."""
        tensors = [None if array is None else torch.from_numpy(array) for array in arrays]
        piece, spans = joined(tensors, pinned=self._data.device.type == "cuda")
        return tuple(taken_apart(piece.to(self._data.device, non_blocking=True), spans))  # type: ignore[arg-type]

    def _caption_numbers(self, planned: PlannedRows) -> NDArray[np.int64]:
        """Which captions of the whole set each text is the mean of, (captions per text, 2n + m)."""
        numbers = np.empty(len(planned.captions), np.int64)
        for n, (shard, _) in enumerate(planned.places):
            for place, sample in planned.texts_of(n, self._data.classes[shard]):
                numbers[place] = self._first[shard] + sample
        return caption_numbers(numbers, planned.captions, self._data.index.captions_per_image)

    def _places(self, planned: PlannedRows) -> NDArray[np.float32] | None:
        placement = self._shape.placement
        if placement is None:
            return None
        seen_at = np.empty((len(planned.places), *placement.shape), np.float32)
        for n, (shard, sample) in enumerate(planned.places):
            seen_at[n] = planned.place(n, self._data.places[self._first[shard] + sample], placement)
        return planned.with_partners(seen_at)

    def _excluded(self, planned: PlannedRows, chosen: PoolChoice) -> NDArray[np.bool_]:
        assert self._draws is not None
        classes = [self._data.classes[shard].names[sample] for shard, sample in planned.places]
        return self._draws.excluded(classes, chosen.classes)


def seen(pixels: Tensor, numbers: Tensor, crops: Tensor, flips: Tensor, size: int) -> Tensor:
    """What rows see of stored pictures, (n, 3, size, size), uint8.

    Args:
        pixels: stored pictures (P, side, side, 3).
        numbers: which of them, (n,).
        crops: left and top, (n, 2).
        flips: whether mirrored left to right, (n,), bool.
        size: of the crops.
    """
    side = pixels.shape[1]
    along = torch.arange(size, device=pixels.device)
    x = torch.where(flips[:, None], size - 1 - along, along) + crops[:, :1]
    y = along + crops[:, 1:]
    at = ((numbers[:, None] * side + y)[:, :, None]) * side + x[:, None]
    # As the loader's lie in memory: convolutions round by that.
    return pixels.view(-1, 3)[at].permute(0, 3, 1, 2).contiguous()
