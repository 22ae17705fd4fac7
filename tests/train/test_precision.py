"""Number formats: what each name means on each device, and what a forward pass then computes in."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch.nn import functional as F

from stackgan_dist.config import PrecisionName
from stackgan_dist.errors import UserError
from stackgan_dist.train.precision import resolve_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("name", "device", "weights", "autocast_to", "scale_loss"),
    [
        ("auto", CPU, torch.float32, None, False),
        ("auto", CUDA, torch.float32, torch.bfloat16, False),
        ("fp32", CPU, torch.float32, None, False),
        ("fp32", CUDA, torch.float32, None, False),
        ("bf16", CPU, torch.float32, torch.bfloat16, False),
        ("bf16", CUDA, torch.float32, torch.bfloat16, False),
        ("fp16", CUDA, torch.float32, torch.float16, True),
        ("tf32", CUDA, torch.float32, None, False),
        ("fp64", CPU, torch.float64, None, False),
    ],
)
def test_names(
    name: PrecisionName,
    device: torch.device,
    weights: torch.dtype,
    autocast_to: torch.dtype | None,
    scale_loss: bool,
) -> None:
    found = resolve_precision(name, device)
    assert (found.weights, found.autocast_to, found.scale_loss) == (weights, autocast_to, scale_loss)
    assert found.device_type == device.type
    assert found.tf32 == (name == "tf32")


def test_fp16_on_a_cpu_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"--training\.precision fp16 needs a CUDA device; on a CPU take fp32"):
        resolve_precision("fp16", CPU)


@pytest.mark.parametrize("name", [name for name in get_args(PrecisionName) if name not in ("fp16", "tf32")])
def test_products_have_the_type_and_weights_keep_theirs(name: PrecisionName) -> None:
    precision = resolve_precision(name, CPU)
    weight = torch.ones(4, 4, dtype=precision.weights, requires_grad=True)
    with precision.autocast():
        product = F.linear(torch.ones(2, 4, dtype=precision.weights), weight)
    assert product.dtype == (precision.autocast_to or precision.weights)
    product.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == precision.weights
