"""Tensors as one piece of memory, which travels from a loader's process to another faster than several.

Torch hands every tensor's memory over by a connection of its own, for a millisecond or two each, however small it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_ALIGNED = 64
"""Bytes: more than any dtype needs, and a line of a processor's cache."""


class Place(NamedTuple):
    """Of a tensor in the piece."""

    begin: int
    """In bytes."""
    dtype: torch.dtype
    shape: tuple[int, ...]


def joined(tensors: Sequence[Tensor | None]) -> tuple[Tensor, list[Place | None]]:
    """A copy of all of them, uint8 of one dimension, and where each is in it."""
    places: list[Place | None] = []
    end = 0
    for tensor in tensors:
        places.append(None if tensor is None else Place(end, tensor.dtype, tuple(tensor.shape)))
        end += 0 if tensor is None else -(-tensor.nbytes // _ALIGNED) * _ALIGNED
    piece = torch.empty(end, dtype=torch.uint8)
    for tensor, place in zip(tensors, places, strict=True):
        if tensor is not None and place is not None:
            piece[place.begin : place.begin + tensor.nbytes].view(place.dtype).view(place.shape).copy_(tensor)
    return piece, places


def taken_apart(piece: Tensor, places: Sequence[Place | None]) -> list[Tensor | None]:
    """The tensors in a piece; they share its memory."""
    return [place and _tensor(piece, place) for place in places]


def _tensor(piece: Tensor, place: Place) -> Tensor:
    size = place.dtype.itemsize * torch.Size(place.shape).numel()
    return piece[place.begin : place.begin + size].view(place.dtype).view(place.shape)
