"""The symmetric structured joint embedding loss (Reed et al., arXiv 1605.05395, section 3; their train_sje_hybrid)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class JointLoss(NamedTuple):
    """Of a batch; scalars."""

    loss: Tensor
    image_accuracy: Tensor
    """Share of the pictures whose own text scores highest."""
    text_accuracy: Tensor
    """Share of the texts whose own picture scores highest."""


def structured_loss(images: Tensor, texts: Tensor) -> JointLoss:
    """The loss of B pictures of B different classes, images (B, dim), and a text of each, texts (B, dim).

    A pair's score is the product of the two. Each other text of a picture has to stay a margin of 1 below its own, and
    each other picture of a text likewise; what exceeds that is summed, over B squared.
    """
    scores = images @ texts.T
    own = scores.diagonal()
    other_texts = (1 + scores - own.unsqueeze(1)).relu()
    other_images = (1 + scores - own.unsqueeze(0)).relu()
    not_others = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    loss = (other_texts + other_images).masked_fill(not_others, 0).sum() / len(scores) ** 2
    places = torch.arange(len(scores), device=scores.device)
    return JointLoss(
        loss,
        (scores.argmax(1) == places).double().mean(),
        (scores.argmax(0) == places).double().mean(),
    )
