"""A compiled discriminator is compiled for both updates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from distributed.tiny import tiny_model
from torch import Tensor

from stackgan_dist.models import build_discriminator
from stackgan_dist.models.matching import MatchingAware


def test_what_the_generator_s_update_calls_is_compiled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []

    def compile(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def compiled(*args: Tensor, **options: Tensor) -> Any:
            called.append(function.__name__)
            return function(*args, **options)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    network = MatchingAware(build_discriminator(tiny_model(), 6))
    network.compile()
    image, text = torch.zeros(2, 3, 64, 64), torch.zeros(2, 6)
    network(image, image, text, text)
    network.judge(image, text)
    assert called == ["_call_impl", "judge"]
