"""Means of captions' embeddings: what a device computes of them without a wait of the host."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from stackgan_dist.data.text_means import mean_texts


class NoNumbersOfTheHost(TorchFunctionMode):
    """Fails where a tensor is indexed by a list: on CUDA its numbers are sent, and the host waits for that."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not (function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[1], list))
        return function(*args, **(kwargs or {}))


def test_texts_between_two_are_half_way_without_a_wait() -> None:
    chosen = torch.rand(2, 5 + 2 + 5, 3, dtype=torch.float64).half()  # rows 1 and 3 of 5 have a partner
    with NoNumbersOfTheHost():
        texts, wrong = mean_texts(chosen, 7, [1, 3])
        mean_texts(chosen[:, :11].to("meta"), 6, [2])
    means = chosen.float().mean(0)
    assert torch.equal(texts[:5], means[:5])
    assert torch.allclose(texts[5:], (means[[1, 3]] + means[5:7]) / 2)
    assert torch.equal(wrong, means[7:])
