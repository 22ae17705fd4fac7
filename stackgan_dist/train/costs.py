"""What a training step costs, counted on tensors without data: operations, weights, and what the backward pass keeps.

The step that is counted is the one that trains (step.py), on torch's meta device, whatever family and terms a run has.
It takes a moment of a CPU and no memory to speak of.
"""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from stackgan_dist.config import Config
from stackgan_dist.data.batch import BatchShape, blank_batch
from stackgan_dist.models import ModelConfig
from stackgan_dist.models.upsampling import UpsampleConv
from stackgan_dist.train.losses import LossWeights
from stackgan_dist.train.networks import build_networks
from stackgan_dist.train.precision import Precision
from stackgan_dist.train.step import StepSettings, train_step


@dataclass(frozen=True)
class StepCost:
    """Of one step of one rank."""

    flop: int
    """Floating-point operations of products and convolutions, 2 for a multiply-add, forward and backward, by
    torch.utils.flop_counter; with the forms that up-sampling takes on the device."""
    parameters: int
    """Trained weights of both networks."""
    state_bytes: int
    """Networks, gradients, Adam's two moments and the generator's moving average, all in float32."""
    saved_bytes: int
    """The most that the two forward passes keep for their backward passes at once, in float32; each tensor counts
    once, weights not at all. What kernels need for themselves is not in it."""


def step_cost(config: Config, text_dim: int, stage1: ModelConfig | None, rows: range, device_type: str) -> StepCost:
    """The cost of a step on `rows` of the global batch, on a device of this type ("cpu" or "cuda").

    Raises whatever a model of one's own raises on the meta device.
    """
    with torch.device("meta"):
        networks = build_networks(config, text_dim, stage1)
        for network in (networks.trained, networks.discriminator):
            for layer in network.modules():
                if isinstance(layer, UpsampleConv):
                    layer.device_type = device_type
        batch = blank_batch(rows, BatchShape.of(config), text_dim)
    settings = StepSettings(
        learning_rate=torch.tensor(config.training.learning_rate),
        discriminator_learning_rate=torch.tensor(config.training.learning_rate),
        adversarial=networks.loss,
        weights=LossWeights.of(config.training),
        precision=Precision(torch.float32, None, "cpu"),
        share=1.0,
        generator_share=1.0,
        read_share=1.0,
    )
    generator, discriminator = _Counted(networks.trained), _Counted(networks.discriminator)
    modules = (generator.module, discriminator.module)
    kept = _Kept([tensor for module in modules for tensor in module.state_dict().values()])
    with FlopCounterMode(display=False) as counter, saved_tensors_hooks(kept.pack, kept.unpack):
        train_step(generator, discriminator, batch, settings)
    trained = sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
    held = sum(t.nbytes for module in (*modules, networks.generator) for t in module.state_dict().values())
    return StepCost(counter.get_total_flops(), trained, held + 3 * 4 * trained, kept.most)


class _Kept:
    """What autograd keeps, in bytes, now and at most; every piece of memory once, and none of `known`."""

    def __init__(self, known: list[Tensor]) -> None:
        self._known = {_memory(tensor) for tensor in known}
        self._holders: Counter[int] = Counter()
        self._now = self.most = 0

    def pack(self, tensor: Tensor) -> _Saved:
        """Take in a tensor that is saved."""
        saved, memory, size = _Saved(tensor), _memory(tensor), tensor.untyped_storage().nbytes()
        if memory not in self._known:
            self._holders[memory] += 1
            if self._holders[memory] == 1:
                self._now += size
                self.most = max(self.most, self._now)
            weakref.finalize(saved, self._let_go, memory, size)
        return saved

    def unpack(self, saved: _Saved) -> Tensor:
        """Give it back."""
        return saved.tensor

    def _let_go(self, memory: int, size: int) -> None:
        self._holders[memory] -= 1
        if self._holders[memory] == 0:
            self._now -= size


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def _memory(tensor: Tensor) -> int:
    """The address of what describes a tensor's memory; views have that of their base."""
    address: int = tensor.untyped_storage()._cdata
    return address


class _Counted:
    """An Engine that computes gradients and changes nothing."""

    rehearses = False

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *inputs: Any) -> Any:
        return self.module(*inputs)

    def update(self, loss: Tensor, learning_rate: float | Tensor) -> Tensor:
        loss.backward()
        return loss.detach()

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing is kept."""
