"""A text is a mean of embeddings of captions: the same bits wherever it is computed, on a host or on a device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def embeddings_of(texts: Tensor, captions: Tensor) -> Tensor:
    """Those of captions by their numbers (...) out of (P, captions, dim): (..., dim)."""
    rows = texts.view(-1, texts.shape[-1]).index_select(0, captions.flatten())  # twice as fast as indexing, on CPUs
    return rows.view(*captions.shape, -1)


def mean_of_captions(chosen: Tensor | Sequence[Tensor]) -> Tensor:
    """The means (rows, dim), float32, of embeddings (captions, rows, dim), summed in the order of the captions."""
    mean = chosen[0].float() + 0  # which turns -0 into 0
    for more in chosen[1:]:
        mean += more
    # Divided by a tensor: CUDA takes a division by a number for a product with its reciprocal, which rounds otherwise.
    return mean.div_(torch.full((), len(chosen), dtype=mean.dtype, device=mean.device))


def mean_texts(chosen: Tensor, texts: int, with_partner: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The matching texts (n + m, dim) of a step, and the mismatched ones (n, dim).

    Args:
        chosen: embeddings of the captions of PlannedRows, (captions per text, n + m + n, dim).
        texts: n + m.
        with_partner: the m rows that draw a text between two: it is half-way to the partner's. Every other row from
            the first of them on.
    """
    means = mean_of_captions(chosen)
    if with_partner:
        between = slice(texts - len(with_partner), texts)
        # By a slice: numbers in a list would be sent to the device, and the host would wait for that.
        own = slice(with_partner[0], with_partner[-1] + 1, 2)
        means[between] = (means[own] + means[between]) / 2
    return means[:texts], means[texts:]
