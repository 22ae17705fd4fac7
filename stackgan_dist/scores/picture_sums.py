"""All that is kept of a set of pictures, however many they are: sums, and the features of the first of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from stackgan_dist.data.captions import Caption
from stackgan_dist.distributed.collectives import sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.overlap import made_ahead
from stackgan_dist.scores.frechet import FrechetSums
from stackgan_dist.scores.inception import InceptionScoreSums
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.kernel import FirstFeatures
from stackgan_dist.scores.r_precision import ClipCandidates

Matches = Callable[[Tensor, Tensor, Sequence[Caption]], Tensor]
"""Numbers (N,), the classifier's features (N, width) and captions of N pictures -> (N,): 1 where the picture is nearest
to its own sentence."""


class Sentence(Protocol):
    """Whatever says a sentence: a Caption does."""

    @property
    def class_name(self) -> str:
        """What a wrong sentence does not share with it."""
        ...

    @property
    def sentence(self) -> str:
        """It."""
        ...


class PictureBatch(Protocol):
    """Some numbered pictures."""

    @property
    def numbers(self) -> Tensor:
        """(n,), int64."""
        ...

    @property
    def images(self) -> Tensor | Sequence[Tensor]:
        """(n, 3, S, S) in [-1, 1], or n of (3, H, W)."""
        ...

    @property
    def captions(self) -> Sequence[Sentence] | None:
        """One of each picture's, where they have any."""
        ...


class FeatureSums:
    """Of one set of pictures in one feature space.

    Args:
        width: of the features.
        kept: pictures whose features are kept.
    """

    def __init__(self, width: int, kept: int) -> None:
        self.frechet = FrechetSums(width)
        self.first = FirstFeatures(kept, width)

    def add(self, numbers: Tensor, features: Tensor) -> None:
        """The features (N, width) of the pictures with these numbers (N,)."""
        self.frechet.add(features)
        self.first.add(numbers, features)


class PictureSums:
    """What the judges say of `count` numbered pictures.

    Args:
        judges: who looks.
        count: pictures, numbered from 0.
        splits: of the Inception Score; as many as there are pictures, at most.
        kept: the first pictures, whose features are kept.
        matches: for R-precision; None: there are no sentences to choose among.
        clip_candidates: the same for R-precision by CLIP.
    """

    def __init__(
        self,
        judges: Judges,
        count: int,
        splits: int,
        kept: int,
        matches: Matches | None = None,
        clip_candidates: ClipCandidates | None = None,
    ) -> None:
        self._judges, self._count, self._matches = judges, count, matches
        self.clip_candidates = clip_candidates
        self.inception = InceptionScoreSums(count, min(splits, count), judges.classifier.classes)
        self.spaces = [FeatureSums(space.feature_width, min(kept, count)) for space in judges.spaces]
        self._label = {name: label for label, name in enumerate(judges.classifier.class_names)}
        self.per_picture = torch.zeros(5, count, dtype=torch.float64)
        """R-precision's matches, CLIP scores, matches of R-precision by CLIP; whether the classifier knows the class of
        the sentence, and whether it is what it sees."""

    def add(self, numbers: Tensor, images: Tensor | Sequence[Tensor], captions: Sequence[Sentence] | None) -> None:
        """Look at some pictures, as Judges.look takes them, and add what was seen; their captions, if they have any."""
        look = self._judges.look(images)
        self.inception.add(numbers, look.logits)
        for space, features in zip(self.spaces, look.features, strict=True):
            space.add(numbers, features)
        places = numbers.cpu()
        if self._matches is not None and captions is not None:
            self.per_picture[0, places] = self._matches(numbers, look.features[0], cast(Sequence[Caption], captions))
        if self._label and captions is not None:
            labels = torch.tensor([self._label.get(caption.class_name, -1) for caption in captions])
            self.per_picture[3, places] = (labels >= 0).double()
            self.per_picture[4, places] = (look.logits.argmax(dim=1).cpu() == labels).double()
        if (clip := self._judges.clip) is not None and captions is not None:
            pictures = F.normalize(look.features[clip.space].cpu().double(), dim=1)
            own = (pictures * clip.embedded([caption.sentence for caption in captions])).sum(1)
            self.per_picture[1, places] = clip.score(own)
            if self.clip_candidates is not None:
                classes = [caption.class_name for caption in captions]
                self.per_picture[2, places] = self.clip_candidates.matches(places, pictures, own, classes)

    def add_all(self, batches: Iterator[PictureBatch], what: str, ranks: Ranks) -> None:
        """Look at this rank's share of all pictures, and merge; `what` they are is said beside the progress."""
        for batch in with_progress(made_ahead(batches, ranks.device), what, self._count, ranks):
            self.add(batch.numbers, batch.images, batch.captions)
        self.merge(ranks)

    def merge(self, ranks: Ranks) -> None:
        """Add up what all ranks have, but for the kept features, which stay where they are."""
        for tensor in (self.inception.tensor, self.per_picture, *(space.frechet.tensor for space in self.spaces)):
            sum_over_ranks(tensor, ranks)

    @property
    def matches(self) -> Tensor:
        """(count,), once merged."""
        return self.per_picture[0]

    @property
    def clip_scores(self) -> Tensor:
        """(count,), once merged."""
        return self.per_picture[1]

    @property
    def clip_matches(self) -> Tensor:
        """(count,), once merged."""
        return self.per_picture[2]

    @property
    def class_matches(self) -> Tensor:
        """(n,), once merged: 1 where the classifier sees the sentence's class, of the pictures whose class it knows."""
        return self.per_picture[4, self.per_picture[3] > 0]
