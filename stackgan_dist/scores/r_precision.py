"""R-precision in the text encoder's own space, or in a CLIP's: does a picture belong to its sentence, or to others?

The measure is AttnGAN's (Xu et al., arXiv 1711.10485, section 4.1): a sentence counts when it is nearer to the picture
than 99 sentences of other classes. Their image encoder is a network trained for it; here it is the linear map that
takes a classifier's features of real training pictures to the mean embedding of their sentences best (ridge
regression), which has one solution and is found from sums. Numbers of different maps must not be compared; each report
carries what real pictures reach. A CLIP has both encoders, so with one it can be measured of anybody's pictures (Park
et al., Benchmark for Compositional Text-to-Image Synthesis, 2021). Pure arithmetic, nothing distributed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stackgan_dist.data.captions import Caption, CaptionSet
from stackgan_dist.errors import UserError
from stackgan_dist.randomness import Stream, hash64, integers, permutation

RIDGE = 0.1
"""The penalty in units of the features' mean variance: keeps out directions that few training pictures cannot tell from
noise."""
_TIE = 1e-9
"""Cosines this close are of one sentence: sums over other numbers of rows round differently."""


class TextMapSums:
    """The sums behind a TextMap: all that a linear regression needs of its pictures and texts."""

    tensor: Tensor
    """(features + 1, features + 1 + text), float64: the sum of (1, x)(1, x, t)^T. All-reduce it with SUM, in place."""

    def __init__(self, features: int, text: int) -> None:
        self._features = features
        self.tensor = torch.zeros(features + 1, features + 1 + text, dtype=torch.float64)

    def add(self, features: Tensor, text: Tensor) -> None:
        """Add pictures: features (N, features) and texts (N, text), any float dtype, on the device of the features."""
        self.tensor = self.tensor.to(features.device)
        x = torch.nn.functional.pad(features.detach().to(self.tensor), (1, 0), value=1.0)
        self.tensor += x.T @ torch.cat([x, text.to(self.tensor)], dim=1)

    def solve(self) -> TextMap:
        """The map of all pictures added; UserError for fewer than 2 of them or features that are not finite."""
        sums = self.tensor.cpu()
        n, end = sums[0, 0].item(), self._features + 1
        if n < 2:
            raise UserError(f"a map from pictures to texts needs at least 2 training pictures, found {n:.0f}")
        if not sums.isfinite().all():
            raise UserError("the classifier gave NaN or Inf for real pictures: its weights are damaged")
        mean, text_mean = sums[0, 1:end] / n, sums[0, end:] / n
        covariance = sums[1:, 1:end] / n - torch.outer(mean, mean)
        shared = sums[1:, end:] / n - torch.outer(mean, text_mean)
        # Features that never vary leave nothing to learn; the smallest number keeps the matrix regular then.
        penalty = RIDGE * covariance.diagonal().mean() + torch.finfo(covariance.dtype).tiny
        regular = covariance + penalty * torch.eye(self._features, dtype=covariance.dtype)
        return TextMap(mean, text_mean, torch.linalg.solve(regular, shared))


class TextMap:
    """Features of pictures to the text encoder's space, around the mean text.

    Args:
        mean: of the features, (features,).
        text_mean: of the texts, (text,).
        weight: (features, text).
    """

    def __init__(self, mean: Tensor, text_mean: Tensor, weight: Tensor) -> None:
        self.mean, self.text_mean, self.weight = mean, text_mean, weight

    def similarity(self, features: Tensor, text: Tensor) -> Tensor:
        """Cosines (N, M), float64, of pictures with features (N, features) and texts (M, text), both off the mean."""
        predicted = (features.to(self.weight) - self.mean) @ self.weight
        others = text.to(self.weight) - self.text_mean
        return torch.nn.functional.normalize(predicted, dim=1) @ torch.nn.functional.normalize(others, dim=1).T


def as_many_wrong(classes: Sequence[str], wanted: int) -> int:
    """The sentences of other classes that each among some of `classes` has at least, but no more than `wanted`.

    1 where it has none, which Candidates refuses.
    """
    return max(1, min(wanted, _of_others(classes)))


def _of_others(classes: Sequence[str]) -> int:
    """The sentences of other classes that the commonest class leaves."""
    return len(classes) - max(Counter(classes).values(), default=0)


class _WrongSentences:
    """Which sentences a picture's own one is held against: `wrong` of other classes, drawn by the picture's number."""

    def __init__(self, classes: Sequence[str], wrong: int, seed: int) -> None:
        self._classes = np.array(classes)
        self._wrong, self._seed = wrong, seed
        if (found := _of_others(classes)) < wrong:
            raise UserError(
                f"R-precision holds a sentence against {wrong} of other classes, found {found}: pack pictures of more "
                "classes"
            )

    def matches(self, numbers: Tensor, class_names: Sequence[str], own: Tensor, others: Tensor) -> Tensor:
        """(N,), float64: 1 for each of N pictures that is nearest to its own sentence, 1/k in a tie of k sentences.

        numbers (N,): of the samples. own (N,): how near each picture is to its own sentence. others (N, M): to all.
        """
        found = torch.zeros(len(own), dtype=torch.float64)
        for row, (number, class_name) in enumerate(zip(numbers.tolist(), class_names, strict=True)):
            order = np.argsort(hash64(self._seed, Stream.SCORE_WRONG, number, np.arange(len(self._classes))))
            wrong = order[self._classes[order] != class_name][: self._wrong]
            similarity = others[row, torch.from_numpy(wrong)]
            if similarity.max() <= own[row] + _TIE:
                found[row] = 1 / (1 + int((similarity >= own[row] - _TIE).sum()))
        return found


class Candidates:
    """Sentences to choose wrong ones from, in the text encoder's space.

    Args:
        text: their embeddings (M, text).
        classes: the class of each one's picture.
        wrong: how many wrong ones a picture's own sentence is held against.
        seed: chooses them.

    Raises UserError when some class leaves fewer than `wrong` of them.
    """

    def __init__(self, text: Tensor, classes: list[str], wrong: int, seed: int) -> None:
        self._text, self._wrong = text, _WrongSentences(classes, wrong, seed)

    def matches(self, text_map: TextMap, numbers: Tensor, features: Tensor, captions: Sequence[Caption]) -> Tensor:
        """(N,), float64: 1 for each of N pictures that is nearest to its own caption, 1/k in a tie of k sentences.

        numbers (N,): of the samples; they choose the wrong sentences. features (N, features): of the pictures.
        """
        features = features.cpu()
        text = torch.from_numpy(np.stack([caption.embedding for caption in captions]))
        own = text_map.similarity(features, text).diagonal()
        others = text_map.similarity(features, self._text)
        return self._wrong.matches(numbers, [caption.class_name for caption in captions], own, others)


class ClipCandidates:
    """Sentences to choose wrong ones from, in a CLIP's space.

    Args:
        text: their embeddings (M, width), of length 1, float64.
        classes: of each, what no wrong sentence shares: the class of its picture, or where there are none itself.
        wrong: how many wrong ones a picture's own sentence is held against.
        seed: chooses them.

    Raises UserError when some class leaves fewer than `wrong` of them.
    """

    def __init__(self, text: Tensor, classes: Sequence[str], wrong: int, seed: int) -> None:
        self._text, self.wrong, self._sentences = text, wrong, _WrongSentences(classes, wrong, seed)

    def matches(self, numbers: Tensor, pictures: Tensor, own: Tensor, class_names: Sequence[str]) -> Tensor:
        """See Candidates.matches: (N,), of pictures (N, width) of length 1, `own` (N,) their sentences' cosines."""
        return self._sentences.matches(numbers, class_names, own, pictures @ self._text.T)


def candidate_captions(captions: CaptionSet, count: int, seed: int) -> list[Caption]:
    """`count` captions of different pictures, or one of each where there are fewer."""
    order = permutation(len(captions), seed, Stream.SCORE_CANDIDATE)[:count].tolist()
    chosen = integers(captions.index.captions_per_image, seed, Stream.SCORE_CANDIDATE, 1, order)
    return [captions.caption(picture, int(number)) for picture, number in zip(order, chosen, strict=True)]
