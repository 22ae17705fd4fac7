"""Text at every layer: batch normalisation whose scale and shift also depend on the text.

Conditional batch normalisation (arXiv 1707.00683): a generator that reads its text once, into its first layer, has
little of it left where parts are painted. The layers get the text from `text_for_layers`, for one forward pass, so that
what lies between them stays a plain sequence of layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from stackgan_dist.models.blocks import initialise_by_inputs

_GAIN = 0.1
"""Of the first weights: small, so that training starts from plain batch normalisation."""


class TextBatchNorm(nn.Module):
    """norm(x) * (1 + scale(text)) + shift(text), with linear functions of the text.

    Args:
        norm: the batch normalisation itself, with its statistics and its own scale and shift.
        text_dim: width of the text embeddings.
    """

    def __init__(self, norm: nn.BatchNorm2d, text_dim: int) -> None:
        super().__init__()
        self.norm = norm
        self.of_text = nn.Linear(text_dim, 2 * norm.num_features)
        self.text: Tensor | None = None
        """(N, text_dim), of the forward pass under way."""

    def forward(self, x: Tensor) -> Tensor:
        """x (N, C, H, W) for the N texts of `text_for_layers`."""
        assert self.text is not None, "a layer that reads the text was called outside of text_for_layers"
        scale, shift = self.of_text(self.text)[:, :, None, None].chunk(2, dim=1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


def read_text(network: nn.Module, text_dim: int) -> list[TextBatchNorm]:
    """Let every batch normalisation of pictures in `network` read the text; returns them."""
    layers: list[TextBatchNorm] = []
    for name, child in list(network.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            layer = TextBatchNorm(child, text_dim)
            setattr(network, name, layer)
            layers.append(layer)
        else:
            layers += read_text(child, text_dim)
    return layers


@contextmanager
def text_for_layers(layers: Iterable[TextBatchNorm], text: Tensor) -> Iterator[None]:
    """Within, `layers` read `text` (N, text_dim), a row for each row that passes through them.

    A network makes one forward pass at a time.
    """
    for layer in layers:
        layer.text = text
    try:
        yield
    finally:
        for layer in layers:
            layer.text = None


def initialise_text_layers(network: nn.Module) -> None:
    """Start what the layers make of the text, from torch's global random numbers: the caller seeds them."""
    for layer in network.modules():
        if isinstance(layer, TextBatchNorm):
            initialise_by_inputs(layer.of_text, _GAIN)
