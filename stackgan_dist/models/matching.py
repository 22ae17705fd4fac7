"""The discriminator with the three pairs of an update: matching-aware training (arXiv 1605.05396, section 4.2)."""

from __future__ import annotations

from torch import Tensor, nn

from stackgan_dist.models import Discriminator, Logits


class MatchingAware(nn.Module):
    """A discriminator that judges the three pairs of an update in one forward pass.

    The features of the real pictures are computed once, for the matching and for the mismatched text.
    """

    def __init__(self, discriminator: Discriminator) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(
        self, real: Tensor, fake: Tensor, condition: Tensor, wrong_condition: Tensor, *place: Tensor
    ) -> tuple[Logits, Logits, Logits]:
        """Logits of (real, matching text), (real, mismatched text) and (fake, matching text), all at one place."""
        features = self.discriminator.features(real)
        return (
            self.discriminator.score(features, condition, *place),
            self.discriminator.score(features, wrong_condition, *place),
            self.discriminator(fake, condition, *place),
        )
