"""Number formats: which type the weights have, and under which autocast the networks run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from stackgan_dist.config import PrecisionName
from stackgan_dist.errors import UserError


@dataclass(frozen=True)
class Precision:
    """Types of a run on one kind of device."""

    weights: torch.dtype
    """Of parameters, optimizer state and batch statistics."""
    autocast_to: torch.dtype | None
    """Of matrix products and convolutions, where it differs from the weights'."""
    device_type: str
    tf32: bool = False
    """Whether CUDA may round float32 numbers to TF32 in products."""

    @property
    def scale_loss(self) -> bool:
        """Whether gradients would underflow without a loss scaler."""
        return self.autocast_to is torch.float16

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.autocast_to is None:
            return nullcontext()
        return torch.autocast(self.device_type, self.autocast_to)


def resolve_precision(name: PrecisionName, device: torch.device) -> Precision:
    """The formats called `name` on `device`; UserError where the device cannot do it."""
    if name == "auto":
        # On CPUs without bf16 units bf16 is some 60 times slower than fp32.
        name = "bf16" if device.type == "cuda" else "fp32"
    if name in ("fp16", "tf32") and device.type == "cpu":
        raise UserError(f"--training.precision {name} needs a CUDA device; on a CPU take fp32")
    weights = torch.float64 if name == "fp64" else torch.float32
    autocast_to = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name)
    return Precision(weights, autocast_to, device.type, tf32=name == "tf32")
