"""A rank's rows of one global batch, and how they travel from a loader's process to the rank.

They travel as one piece of memory: torch hands every tensor's memory over by a connection of its own, for a
millisecond or two each, however small it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from stackgan_dist.config import Config
from stackgan_dist.data.shared_memory import handed_over, received
from stackgan_dist.models.config import Placement

_ALIGNED = 64
"""Bytes: more than any dtype needs, and a line of a processor's cache."""


@dataclass(frozen=True)
class BatchShape:
    """What a training step wants of its rows."""

    image_size: int
    captions_per_text: int
    """A text is the mean embedding of this many of the picture's captions, drawn anew each step."""
    noise_dim: int
    stages: int
    """Conditioning augmentations."""
    condition_dim: int
    interpolate: bool = False
    """Whether every other row draws a text between two."""
    placement: Placement | None = None
    """What the model is told about where the object is."""
    pool: int = 0
    """Texts that a picture has to pick its own out of."""

    @classmethod
    def of(cls, config: Config) -> BatchShape:
        """What the steps of a run want."""
        model, training = config.model, config.training
        return cls(
            image_size=model.image_size,
            captions_per_text=training.captions_per_text,
            noise_dim=model.noise_dim,
            stages=model.augmentations,
            condition_dim=model.condition_dim,
            interpolate=training.interpolated_texts,
            placement=model.placement,
            pool=training.contrastive_pool if training.contrastive_weight else 0,
        )


def rows_with_partner(rows: Sequence[int]) -> list[int]:
    """Those of the rows that also draw a text between two: every other row of the global batch."""
    return [row for row in rows if row % 2]


class Batch(NamedTuple):
    """A rank's rows of one global batch; n is the number of those rows.

    m more follow where texts are interpolated, for the generator alone: no real picture has such a text.
    """

    images: Tensor
    """Real pictures, (n, 3, S, S), uint8."""
    text: Tensor
    """Embeddings of matching captions, (n + m, dim), float32; the last m lie half-way between two pictures' texts."""
    wrong_text: Tensor
    """Embeddings of captions of another class, (n, dim), float32."""
    z: Tensor
    """Noise of the generator, (n + m, noise_dim), float32, standard normal."""
    eps: Tensor
    """Noise of each stage's conditioning augmentation, (n + m, stages, condition_dim), float32, standard normal."""
    samples: Tensor
    """(shard, sample) of each row, (n, 2), int64: what was consumed."""
    place: Tensor | None = None
    """Where the object is, (n + m, *placement.shape), float32, for models that are told."""

    pool: Tensor | None = None
    """Embeddings of the texts that a row has to pick its own out of, (P, dim), float32: the same for all rows of the
    global batch."""
    excluded: Tensor | None = None
    """Those of the pool that are no wrong answers for a row, since they are of its class, (n, P), bool."""
    pool_captions: Tensor | None = None
    """In place of `pool` until text_pool.with_pool, since that would be most of a batch on its way: the numbers of its
    texts' captions in the reserve of a TextPool, (captions per text, P), int64."""

    def __reduce__(self) -> Any:
        piece, spans = joined(self)
        return _batch, (handed_over(piece), spans)


def blank_batch(rows: Sequence[int], shape: BatchShape, text_dim: int) -> Batch:
    """A batch without content, to rehearse a step with: black pictures, texts and noise that differ from row to row."""
    n = len(rows)
    all_rows = n + (len(rows_with_partner(rows)) if shape.interpolate else 0)
    ramp = torch.linspace(-1, 1, all_rows).unsqueeze(1)
    return Batch(
        images=torch.zeros(n, 3, shape.image_size, shape.image_size, dtype=torch.uint8),
        text=ramp.expand(all_rows, text_dim),
        wrong_text=ramp[:n].expand(n, text_dim),
        z=ramp.expand(all_rows, shape.noise_dim),
        eps=ramp.unsqueeze(1).expand(all_rows, shape.stages, shape.condition_dim),
        samples=torch.zeros(n, 2, dtype=torch.int64),
        place=torch.full((all_rows, *shape.placement.shape), 0.5) if shape.placement else None,
        pool=torch.linspace(-1, 1, shape.pool).unsqueeze(1).expand(-1, text_dim) if shape.pool else None,
        excluded=torch.zeros(n, shape.pool, dtype=torch.bool) if shape.pool else None,
    )


def _batch(piece: Tensor | NDArray[np.uint8], spans: Sequence[Span | None]) -> Batch:
    return Batch(*taken_apart(received(piece), spans))  # type: ignore[arg-type]  # None where it was


class Span(NamedTuple):
    """Where a tensor lies in the piece."""

    begin: int
    """In bytes."""
    dtype: torch.dtype
    shape: tuple[int, ...]


def joined(tensors: Sequence[Tensor | None], *, pinned: bool = False) -> tuple[Tensor, list[Span | None]]:
    """A copy of all of them, uint8 of one dimension, and where each is in it; in `pinned` memory on its way to CUDA."""
    spans: list[Span | None] = []
    end = 0
    for tensor in tensors:
        spans.append(None if tensor is None else Span(end, tensor.dtype, tuple(tensor.shape)))
        end += 0 if tensor is None else -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    piece = torch.empty(end, dtype=torch.uint8, pin_memory=pinned)
    for tensor, span in zip(tensors, spans, strict=True):
        if tensor is not None and span is not None:
            piece[span.begin : span.begin + tensor.nbytes].view(span.dtype).view(span.shape).copy_(tensor)
    return piece, spans


def taken_apart(piece: Tensor, spans: Sequence[Span | None]) -> list[Tensor | None]:
    """The tensors in a piece; they share its memory."""
    return [span and _tensor(piece, span) for span in spans]


def _tensor(piece: Tensor, span: Span) -> Tensor:
    size = span.dtype.itemsize * torch.Size(span.shape).numel()
    return piece[span.begin : span.begin + size].view(span.dtype).view(span.shape)
