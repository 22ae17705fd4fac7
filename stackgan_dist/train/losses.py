"""The terms of the loss beside the adversarial one (models/adversarial.py), and their weights.

All are means over the rows given, but for `own_text_error`, which is one for each row. Half-precision input is
computed in float32; float32 and float64 stay as they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stackgan_dist.config import TrainingConfig
from stackgan_dist.models.adversarial import at_least_float32


@dataclass(frozen=True)
class LossWeights:
    """What each term counts beside the adversarial loss, of G or of D; 0 leaves a term out."""

    kl: float
    """Of `kl_divergence`."""
    colour: float
    """Of `colour_difference`."""
    reconstruction: float
    """Of `reconstruction_error`."""
    contrastive: float = 0.0
    """Of `own_text_error` of real pictures, in the discriminator's loss."""
    generator_contrastive: float = 0.0
    """Of `own_text_excess` of generated pictures."""
    reading: float = 0.0
    """Of `redrawing_error`."""
    reading_kl: float = 0.0
    """Of `reading_divergence`."""

    @classmethod
    def of(cls, training: TrainingConfig) -> LossWeights:
        """Those of a run."""
        return cls(
            kl=training.kl_weight,
            colour=training.colour_weight,
            reconstruction=training.reconstruction_weight,
            contrastive=training.contrastive_weight,
            generator_contrastive=training.generator_contrastive_weight,
            reading=training.reading_weight,
            reading_kl=training.reading_kl_weight,
        )

    @property
    def present(self) -> frozenset[str]:
        """The names of the terms that are not left out."""
        return frozenset(name for name, weight in asdict(self).items() if weight)


def kl_divergence(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of (N, D), its mean over rows AND dimensions, as in both of the authors' codes.

    The textbook divergence sums over the D dimensions and is D times as large.
    """
    return _divergences(mu, log_sigma).mean()


def colour_difference(image: Tensor, low_resolution: Tensor) -> Tensor:
    """How far the colours of Stage-II images (N, 3, S, S) are from those of their Stage-I images (N, 3, 64, 64).

    Both in [-1, 1]. |mean - mean|^2 + 5 |covariance - covariance|^2 over the pixels of each image, a mean over the
    rows: the colour consistency of StackGAN-v2 (arXiv 1710.10916, section 3.3 with its lambda 1 and 5).
    """
    (mean, covariance), (low_mean, low_covariance) = map(_colours, (image, low_resolution))
    mean_part = (mean - low_mean).square().sum(1)
    covariance_part = (covariance - low_covariance).square().sum((1, 2))
    return (mean_part + 5 * covariance_part).mean()


def reconstruction_error(rebuilt: Tensor, pictures: Tensor) -> Tensor:
    """Mean absolute difference of what Stage-II made of shrunken pictures and the pictures, both (N, 3, S, S)."""
    return F.l1_loss(at_least_float32(rebuilt), at_least_float32(pictures))


def own_text_error(logits: Tensor, excluded: Tensor) -> Tensor:
    """InfoNCE (arXiv 1807.03748) of each row, (N,): -log of the probability of its own text among those of the pool.

    Args:
        logits: of a row with its own text and with each of the pool, (N, 1 + P).
        excluded: texts of the pool that are no wrong answers for a row, since they are of its class; (N, P), bool.
    """
    logits = _comparable(logits, excluded)
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64, device=logits.device), reduction="none")


def own_text_excess(fake: Tensor, real: Tensor) -> Tensor:
    """By how much generated pictures pick their text worse than real ones, rows that do better counting 0: a scalar.

    Of `own_text_error` (N,) of both, for the same texts and the same pool. A real picture is all that its text can be
    told by; beyond it a generator only learns what pleases the head. No gradient flows into the real pictures' part.
    """
    return F.relu(fake - real.detach()).mean()


def own_text_share(logits: Tensor, excluded: Tensor) -> Tensor:
    """The share of the rows that pick their own text; arguments as of `own_text_error`."""
    logits = _comparable(logits, excluded)
    return (logits[:, 0] > logits[:, 1:].amax(1)).to(logits.dtype).mean()


def redrawing_error(redrawn: Tensor, pictures: Tensor) -> Tensor:
    """Mean absolute difference of what the generator makes of z that was read, and the pictures that it was read off.

    Both (N, 3, S, S); 0 where N is 0, as a rank's share of the rows that are read may be.
    """
    redrawn, pictures = at_least_float32(redrawn), at_least_float32(pictures)
    return _mean_over_rows((redrawn - pictures).abs().mean((1, 2, 3)))


def reading_divergence(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of (N, D), SUMMED over dimensions; its mean over rows, 0 where N is 0."""
    return _mean_over_rows(_divergences(mu, log_sigma).sum(1))


def _divergences(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """KL(N(mu, sigma^2) || N(0, 1)) of each dimension of each row, (N, D)."""
    mu, log_sigma = at_least_float32(mu), at_least_float32(log_sigma)
    return (mu.square() + (2 * log_sigma).exp() - 1) / 2 - log_sigma


def _comparable(logits: Tensor, excluded: Tensor) -> Tensor:
    """Logits (N, 1 + P) by which no text that is excluded can be picked."""
    logits = at_least_float32(logits)
    return torch.cat([logits[:, :1], logits[:, 1:].masked_fill(excluded, -torch.inf)], dim=1)


def _mean_over_rows(values: Tensor) -> Tensor:
    """Of (N,); 0, with a gradient of 0, where N is 0."""
    return values.sum() / max(len(values), 1)


def _colours(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N, 3) and covariance (N, 3, 3) of the pixels of images (N, 3, S, S)."""
    pixels = at_least_float32(images).flatten(2)
    mean = pixels.mean(2)
    centred = pixels - mean[:, :, None]
    return mean, centred @ centred.transpose(1, 2) / pixels.shape[2]
