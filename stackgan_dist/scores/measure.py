"""All scores of a run in one pass over its pictures, each of which is generated once.

Diversity alone takes pictures of its own, some of each sentence. What real pictures reach is measured once and serves
every checkpoint. Ranks add what they have; any number of them gives the same scores.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from stackgan_dist.data.pictures import RealBatch, RealPictures
from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.scores.comparison import Comparison, RealSet, compare
from stackgan_dist.scores.cost import announce
from stackgan_dist.scores.diversity import Diversity, diversity_of_generated, diversity_of_real
from stackgan_dist.scores.inception import InceptionScore
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.picture_sums import Matches, PictureSums
from stackgan_dist.scores.protocol import ScoreProtocol
from stackgan_dist.scores.r_precision import (
    Candidates,
    ClipCandidates,
    TextMap,
    TextMapSums,
    as_many_wrong,
    candidate_captions,
)
from stackgan_dist.scores.real_side import RealSide, Recipe, measure_real_side
from stackgan_dist.scores.subject import OpenSubject


@dataclass(frozen=True)
class Scores:
    """Everything that was measured of a set of pictures, merged over the ranks."""

    inception: InceptionScore
    spaces: list[Comparison]
    """One for each of the judges' spaces, the classifier's first."""
    matches: Tensor | None
    """(samples,): R-precision's, None where there are no sentences of other classes."""
    clip_scores: Tensor | None
    """(samples,): None without a CLIP, or without sentences."""
    clip_matches: Tensor | None
    """(samples,): of R-precision by CLIP, the same."""
    clip_wrong: int
    """How many sentences it holds a picture's own against."""
    class_matches: Tensor
    """(n,): whether the classifier sees the class of the sentence, of the n pictures whose class it knows."""
    diversity: Diversity | None = None
    """Of pictures of one sentence."""


def scores_of(
    sums: PictureSums,
    real: list[RealSet],
    judges: Judges,
    protocol: ScoreProtocol,
    seed: int,
    ranks: Ranks,
    *,
    has_sentences: bool,
    has_matches: bool,
) -> Scores:
    """What follows from the merged sums of a set of pictures; all ranks take part and get the same."""
    comparisons = [
        compare(own, other, encoder, protocol, seed, ranks)
        for own, other, encoder in zip(sums.spaces, real, judges.spaces, strict=True)
    ]
    return Scores(
        sums.inception.result(),
        comparisons,
        sums.matches if has_matches else None,
        sums.clip_scores if has_sentences and judges.clip is not None else None,
        sums.clip_matches if sums.clip_candidates is not None else None,
        sums.clip_candidates.wrong if sums.clip_candidates is not None else 0,
        sums.class_matches,
    )


class RunScores:
    """The scores of a run's checkpoints.

    Args:
        subject: whose data to take.
        judges: who looks.
        protocol: how much of everything.
        ranks: all of them take part.
        folder: where what is measured of real pictures is kept, for other runs on the same data. None: nowhere.

    What it costs is said first.
    """

    wrong: int
    """How many sentences of other classes R-precision holds a picture's own against: fewer than the protocol's where
    there are not so many."""
    other_training: str | None
    """Where the training pictures lie, if they are not those that the run was trained on."""

    def __init__(
        self, subject: OpenSubject, judges: Judges, protocol: ScoreProtocol, ranks: Ranks, folder: str | None
    ) -> None:
        self._judges, self._protocol, self._ranks = judges, protocol, ranks
        settings, real, training = subject.subject, subject.captions, subject.training()
        self.other_training = training.url if training.index.digest != subject.trained.data.digest else None
        pool = candidate_captions(real.captions(), protocol.wrong_pool, settings.seed)
        classes = [caption.class_name for caption in pool]
        self.wrong = as_many_wrong(classes, protocol.wrong_captions)
        self._candidates = Candidates(
            torch.stack([torch.from_numpy(caption.embedding) for caption in pool]), classes, self.wrong, settings.seed
        )
        self._clip_candidates = None
        if judges.clip is not None:
            self._clip_candidates = ClipCandidates(
                judges.clip.embedded([caption.sentence for caption in pool]), classes, self.wrong, settings.seed
            )
        size = subject.trained.config.model.image_size
        groups = protocol.diversity_sentences, protocol.diversity_pictures
        recipe = Recipe(
            RealPictures(real.captions(), size, settings.batch_size, settings.seed),
            RealPictures(training.captions(), size, settings.batch_size, settings.seed, protocol.map_pictures),
            size,
            settings.seed,
            settings.batch_size,
            {
                "image_size": size,
                "captions_digest": real.index.digest,
                "training_digest": training.index.digest,
                "wrong_captions": self.wrong,
                "wrong_pool": protocol.wrong_pool,
                "map_pictures": protocol.map_pictures,
                "diversity": groups,
            },
            lesson=_Lesson(judges.classifier.feature_width, real.index.text_dim, self._candidates, ranks),
            diversity=partial(diversity_of_real, subject, *groups),
            clip_candidates=self._clip_candidates,
        )
        batch_size = settings.batch_size
        trial = subject.generated(2 * batch_size, ranks).batches(0, 1)
        announce("generated pictures", protocol.samples, trial, batch_size, recipe, judges, protocol, ranks, folder)
        self.real: RealSide = measure_real_side(recipe, judges, protocol, ranks, folder)
        self._matches = _matches(self._candidates, TextMap(**self.real.learnt))

    def score(self, subject: OpenSubject) -> Scores:
        """Generate the samples of `subject` and measure them; every rank gets the scores."""
        protocol, ranks = self._protocol, self._ranks
        sums = PictureSums(
            self._judges, protocol.samples, protocol.splits, protocol.compared, self._matches, self._clip_candidates
        )
        pictures = subject.generated(protocol.samples, ranks)
        sums.add_all(pictures.batches(ranks.rank, ranks.world_size), f"step {subject.trained.step:,}", ranks)
        seed, groups = subject.subject.seed, (protocol.diversity_sentences, protocol.diversity_pictures)
        scores = scores_of(
            sums, self.real.spaces, self._judges, protocol, seed, ranks, has_sentences=True, has_matches=True
        )
        return replace(scores, diversity=diversity_of_generated(subject, *groups, ranks, self._judges))


class _Lesson:
    """From the classifier's features of training pictures to the mean embedding of their sentences."""

    def __init__(self, features: int, text: int, candidates: Candidates, ranks: Ranks) -> None:
        self._sums, self._candidates, self._ranks = TextMapSums(features, text), candidates, ranks

    def add(self, batch: RealBatch, features: Tensor) -> None:
        """See Lesson."""
        self._sums.add(features, torch.from_numpy(batch.mean_text))

    def learnt(self) -> tuple[Matches, dict[str, Tensor]]:
        """See Lesson."""
        sum_over_ranks(self._sums.tensor, self._ranks)
        text_map = self._sums.solve()
        return _matches(self._candidates, text_map), vars(text_map)


def _matches(candidates: Candidates, text_map: TextMap) -> Matches:
    return lambda numbers, features, captions: candidates.matches(text_map, numbers, features, captions)
