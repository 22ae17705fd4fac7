"""An adversarial loss of one's own, least squares, for any family.

PYTHONPATH=examples stackgan train --training.loss own_loss:LeastSquares
"""

from __future__ import annotations

from torch import Tensor

from stackgan_dist.models import PairLoss


class LeastSquares(PairLoss):
    """The discriminator's logits are drawn to 1 and to 0 (arXiv 1611.04076)."""

    def real(self, logits: Tensor) -> Tensor:
        return (logits - 1).square()

    def fake(self, logits: Tensor) -> Tensor:
        return logits.square()

    def fooling(self, logits: Tensor) -> Tensor:
        return (logits - 1).square()
