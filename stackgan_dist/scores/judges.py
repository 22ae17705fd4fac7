"""The networks that look at pictures for a set of scores: one classifier, and encoders of pictures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stackgan_dist.classifiers.classifier import Classifier, load_classifier
from stackgan_dist.classifiers.image_encoder import FolderEncoder, ImageEncoder, load_image_encoder
from stackgan_dist.errors import UserError


class Look(NamedTuple):
    """What the judges see in N pictures."""

    logits: Tensor
    """(N, classes), of the classifier."""
    features: list[Tensor]
    """(N, width) for each of the spaces, on its device."""


@dataclass(frozen=True)
class Judges:
    """A classifier, whose features are the first space, and encoders with a space each."""

    classifier: Classifier
    encoders: tuple[ImageEncoder, ...] = ()

    @classmethod
    def load(cls, classifier: str, encoders: Sequence[str], device: torch.device | str = "cpu") -> Judges:
        """By their names, as for load_classifier and load_image_encoder; raises UserError as these do."""
        loaded = tuple(load_image_encoder(spec, device) for spec in encoders)
        return cls(load_classifier(classifier, device), loaded)

    @property
    def spaces(self) -> tuple[ImageEncoder, ...]:
        """Whatever gives features."""
        return (self.classifier, *self.encoders)

    @cached_property
    def clip(self) -> Clip | None:
        """The first CLIP among the encoders; UserError when its folder has no tokenizer."""
        for number, encoder in enumerate(self.spaces):
            if isinstance(encoder, FolderEncoder) and encoder.kind == "clip":
                return Clip(number, encoder)
        return None

    def look(self, images: Tensor | Sequence[Tensor]) -> Look:
        """At pictures (N, 3, S, S) in [-1, 1], or at several (3, H, W) of sizes of their own."""
        prediction = self.classifier.predict(_alike(images, self.classifier))
        others = [encoder.features(_alike(images, encoder)) for encoder in self.encoders]
        return Look(prediction.logits, [prediction.features, *others])

    def check(self) -> None:
        """UserError when two judges are the same, whose rows could not be told apart, or a CLIP has no tokenizer."""
        digests = [space.describe()["weights_sha256"] for space in self.spaces]
        twice = next((digest for digest in digests if digests.count(digest) > 1), None)
        if twice is not None:
            name = self.spaces[digests.index(twice)].name
            raise UserError(f"{name} is named twice among --classifier and --encoder; name it once")
        _ = self.clip  # its tokenizer is looked for here, not after hours


def _alike(images: Tensor | Sequence[Tensor], network: ImageEncoder) -> Tensor:
    if isinstance(images, Tensor):
        return images
    return torch.cat([network.resized(image[None]) for image in images])


class Clip:
    """What the CLIP score (Hessel et al., arXiv 2104.08718) and R-precision by CLIP need of one.

    Args:
        space: number of CLIP's space among the judges'.
        encoder: the CLIP.
    """

    def __init__(self, space: int, encoder: FolderEncoder) -> None:
        self.space, self.encoder = space, encoder
        self._encode = encoder.text_encoder()

    def embedded(self, sentences: Sequence[str]) -> Tensor:
        """(N, width), float64, each of length 1."""
        return F.normalize(self._encode(sentences).cpu().double(), dim=1)

    @staticmethod
    def score(cosines: Tensor) -> Tensor:
        """The CLIP score of pictures by their cosines (N,) with their sentences."""
        return 100 * cosines.clamp(min=0)
