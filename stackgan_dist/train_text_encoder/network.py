"""The two sides of a joint embedding: a linear map of pictures' features; a text encoder, or what a frozen one gave."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stackgan_dist.text.char_cnn_rnn import CharCNNRNN


class JointEmbedding(nn.Module):
    """Pictures and texts in one space, where their product is the score.

    Args:
        features: (N, width) of the training pictures, whose mean and deviation become part of the map.
        dim: of the space: that of the texts.
        text: the text encoder under training; None: texts are given as the embeddings of a frozen one.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, features: Tensor, dim: int, text: CharCNNRNN | None) -> None:
        super().__init__()
        self.register_buffer("mean", features.mean(0))
        deviation = features.std(0, correction=0)
        # A feature that hardly varies is not blown up to the size of the others.
        smallest = 1e-3 * float(deviation.max()) + torch.finfo(features.dtype).tiny
        self.register_buffer("deviation", deviation.clamp(min=smallest))
        self.image = nn.Linear(features.shape[1], dim)
        self.text = text

    def forward(self, features: Tensor, texts: Tensor, dropout: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Pictures (N, dim) and texts (N, dim).

        features (N, width); texts: (N, LENGTH) characters, or (N, dim) embeddings of a frozen encoder; dropout: factors
        for the text encoder, see CharCNNRNN.
        """
        texts = texts.to(self.mean) if self.text is None else self.text(texts, dropout)
        return self.map_images(features), texts

    def map_images(self, features: Tensor) -> Tensor:
        """Pictures (N, dim) by their features (N, width)."""
        pictures: Tensor = self.image((features.to(self.mean) - self.mean) / self.deviation)
        return pictures
