"""Work on a CUDA stream of its own, whose results another stream goes on with."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def hand_over(values: Iterable[object], side: torch.cuda.Stream) -> None:
    """Let the current stream have those of `values` that are tensors and that `side` has been told to make."""
    here = torch.cuda.current_stream(side.device)
    here.wait_stream(side)
    for value in values:
        if isinstance(value, Tensor) and value.is_cuda:
            value.record_stream(here)  # else its memory could serve a later batch while this one is still read
