"""Engines: how the ranks share the training of one network. The step does not know which one it has."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class Engine(Protocol):
    """One network under training: its forward pass, its gradients over all ranks, its optimizer."""

    module: nn.Module
    """The plain network, for what must not take part in gradient synchronisation."""

    rehearses: bool
    """Whether its first backward pass is unlike all later ones, see TrainingState.rehearse."""

    def __call__(self, *inputs: Any) -> Any:
        """The forward pass whose backward pass averages gradients over the ranks. Once per update."""
        ...

    def update(self, loss: Tensor, learning_rate: float | Tensor) -> Tensor:
        """Backward, average over the ranks, optimizer step. Returns the gradient's norm, a scalar on the device.

        `loss` is this rank's share of the global loss, scaled so that the mean over ranks is the global loss. Where
        `learning_rate` is a tensor, 0-dim, a captured step reads it anew in every replay (train/captured.py).
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Network, optimizer and loss scaler, the same names and shapes whatever the engine and the ranks.

        Every rank has to call it. It is whole on rank 0; elsewhere it may lack the optimizer's state.
        """
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what rank 0's `state_dict` returned, by either engine, on any number of ranks."""
        ...
