"""What pictures are compared with: real ones, training pictures and noise, measured once and kept for other scores.

What is kept is found again by all that decides it: the data sets' digests, the networks, the resizing, the order of the
pictures and the code itself. The number of generated pictures is no part of it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from stackgan_dist.data.pictures import noise_pictures
from stackgan_dist.distributed.agreement import code_digest
from stackgan_dist.distributed.collectives import sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.machine import user_name
from stackgan_dist.overlap import made_ahead
from stackgan_dist.runs.cached import cached_or_made, is_cached
from stackgan_dist.scores.comparison import RealSet
from stackgan_dist.scores.diversity import Diversity
from stackgan_dist.scores.frechet import FrechetSums
from stackgan_dist.scores.inception import InceptionScore, InceptionScoreSums
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.kernel import FirstFeatures
from stackgan_dist.scores.picture_sums import Matches, PictureBatch, PictureSums
from stackgan_dist.scores.protocol import ScoreProtocol
from stackgan_dist.scores.r_precision import ClipCandidates

NOISE_PICTURES = 200
"""So many pictures of noise are scored; they are all alike to a classifier."""
NOWHERE = "none"
DEFAULT = "default"


class Lesson(Protocol):
    """What is learnt of the training pictures before the real ones are looked at: R-precision's map."""

    def add(self, batch: Any, features: Tensor) -> None:
        """A batch of training pictures and the classifier's features (n, width) of them."""
        ...

    def learnt(self) -> tuple[Matches, dict[str, Tensor]]:
        """What it is good for, and what it is made of; all ranks call it."""
        ...


class PictureSource(Protocol):
    """Numbered pictures, dealt out to ranks in whole batches."""

    count: int

    def batches(self, rank: int, world_size: int) -> Iterator[PictureBatch]:
        """The batches of one rank."""
        ...


@dataclass(frozen=True)
class Recipe:
    """What to measure of the real side.

    Without `training` nothing is said about learning by heart, without a `lesson` there is no R-precision.
    """

    real: PictureSource
    training: PictureSource | None
    image_size: int
    """Of the pictures of noise."""
    seed: int
    batch_size: int
    identity: Mapping[str, Any]
    """Of the sets and how their pictures are made ready; JSON values."""
    lesson: Lesson | None = None
    diversity: Callable[[Ranks, Judges], Diversity] | None = None
    """Measures groups of real pictures that share a class; all ranks call it."""
    clip_candidates: ClipCandidates | None = None
    """Without them there is no R-precision by CLIP of the real pictures."""


@dataclass(frozen=True)
class RealSide:
    """The real side as it was measured, or found."""

    spaces: list[RealSet]
    """One for each of the judges' spaces."""
    inception: InceptionScore
    inception_of_noise: InceptionScore
    r_precision: float
    """Of the real pictures: the most that can be expected."""
    clip_score: float | None
    """Of the real pictures; None without a CLIP, or without sentences."""
    clip_r_precision: float | None
    """The same."""
    class_agreement: float | None
    """Share of the real pictures that the classifier sees as what they are; None where it knows none of the classes."""
    diversity: Diversity | None
    """Of groups of real pictures that share a class."""
    learnt: dict[str, Tensor]
    """What the lesson is made of; nothing without one."""


def kept_folder(option: str) -> str | None:
    """The folder that --keep-real means: `default` is the user's cache, `none` nowhere."""
    if option == NOWHERE:
        return None
    if option != DEFAULT:
        return option
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    folder = Path(home) / "stackgan_dist" / "real"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    except OSError:
        pass
    return str(Path(tempfile.gettempdir()) / f"stackgan_dist-{user_name()}" / "real")


def is_kept(recipe: Recipe, judges: Judges, protocol: ScoreProtocol, ranks: Ranks, folder: str | None) -> bool:
    """Whether `folder` has what is to be measured of the real side; rank 0 looks, all ranks call it."""
    return is_cached(folder, _identity(recipe, judges, protocol), ranks)


def _identity(recipe: Recipe, judges: Judges, protocol: ScoreProtocol) -> dict[str, Any]:
    """All that decides what is measured."""
    return {
        **{f"space {number}": space.describe() for number, space in enumerate(judges.spaces)},
        **recipe.identity,
        "seed": recipe.seed,
        "batch_size": recipe.batch_size,
        "splits": protocol.splits,
        "kept": _kept_counts(recipe, protocol),
        "code": code_digest("scores", "classifiers", "data"),
    }


def _kept_counts(recipe: Recipe, protocol: ScoreProtocol) -> tuple[int, int]:
    """Real and training pictures whose features are kept."""
    training = recipe.training.count if recipe.training is not None else 0
    return (
        min(protocol.compared, recipe.real.count),
        min(protocol.neighbour_samples, protocol.map_pictures, training),
    )


def measure_real_side(
    recipe: Recipe, judges: Judges, protocol: ScoreProtocol, ranks: Ranks, folder: str | None
) -> RealSide:
    """Measure the real side, or take from `folder` what was measured before; all ranks take part."""
    count = recipe.real.count
    kept, training = _kept_counts(recipe, protocol)
    found = cached_or_made(
        folder,
        _identity(recipe, judges, protocol),
        lambda: _measured(recipe, judges, protocol, kept, training, ranks),
        ranks,
    )

    def inception(pictures: int, name: str) -> InceptionScore:
        sums = InceptionScoreSums(pictures, min(protocol.splits, pictures), judges.classifier.classes)
        sums.tensor.copy_(found[name])
        return sums.result()

    spaces = []
    for number, space in enumerate(judges.spaces):
        moments = FrechetSums(space.feature_width)
        moments.tensor.copy_(found[f"frechet {number}"])
        of_training = _kept(found[f"training {number}"], ranks) if training else None
        spaces.append(RealSet(moments, _kept(found[f"features {number}"], ranks), of_training))
    return RealSide(
        spaces,
        inception(count, "inception"),
        inception(NOISE_PICTURES, "inception of noise"),
        found["matches"].mean().item(),
        found["clip scores"].mean().item() if found["clip scores"].any() else None,
        found["clip matches"].mean().item() if recipe.clip_candidates is not None else None,
        found["class matches"].mean().item() if len(found["class matches"]) else None,
        Diversity(found["diversity"]) if recipe.diversity is not None else None,
        {name.removeprefix("learnt "): value for name, value in found.items() if name.startswith("learnt ")},
    )


def _kept(rows: Tensor, ranks: Ranks) -> FirstFeatures:
    """Features that rank 0 alone hands on."""
    first = FirstFeatures(*rows.shape)
    if ranks.is_main:
        first.add(torch.arange(len(rows)), rows)
    return first


def _measured(
    recipe: Recipe, judges: Judges, protocol: ScoreProtocol, kept: int, training: int, ranks: Ranks
) -> dict[str, Tensor]:
    """All that is measured, merged over the ranks."""
    firsts = [FirstFeatures(training, space.feature_width) for space in judges.spaces]
    if recipe.training is not None:
        batches = made_ahead(recipe.training.batches(ranks.rank, ranks.world_size), ranks.device)
        for batch in with_progress(batches, "training pictures", recipe.training.count, ranks):
            features = judges.look(batch.images).features
            for first, one in zip(firsts, features, strict=True):
                first.add(batch.numbers, one)
            if recipe.lesson is not None:
                recipe.lesson.add(batch, features[0])
    matches, learnt = recipe.lesson.learnt() if recipe.lesson is not None else (None, {})

    sums = PictureSums(judges, recipe.real.count, protocol.splits, kept, matches, recipe.clip_candidates)
    sums.add_all(recipe.real.batches(ranks.rank, ranks.world_size), "real pictures", ranks)
    of_noise = InceptionScoreSums(NOISE_PICTURES, min(protocol.splits, NOISE_PICTURES), judges.classifier.classes)
    blank = noise_pictures(
        NOISE_PICTURES, recipe.image_size, recipe.batch_size, recipe.seed, ranks.rank, ranks.world_size
    )
    for nothing in with_progress(blank, "noise", NOISE_PICTURES, ranks):
        of_noise.add(nothing.numbers, judges.classifier.logits(nothing.images))
    sum_over_ranks(of_noise.tensor, ranks)
    found = {
        "inception": sums.inception.tensor.cpu(),
        "inception of noise": of_noise.tensor.cpu(),
        "matches": sums.matches,
        "clip scores": sums.clip_scores,
        "clip matches": sums.clip_matches,
        "class matches": sums.class_matches,
        **({"diversity": recipe.diversity(ranks, judges).values} if recipe.diversity is not None else {}),
        **{f"learnt {name}": value for name, value in learnt.items()},
    }
    for number, space in enumerate(sums.spaces):
        found[f"frechet {number}"] = space.frechet.tensor.cpu()
        found[f"features {number}"] = _rows(space.first, ranks)
        found[f"training {number}"] = _rows(firsts[number], ranks)
    return found


def _rows(first: FirstFeatures, ranks: Ranks) -> Tensor:
    """All that is kept, on every rank."""
    rows = first.rows(0, first.count)
    sum_over_ranks(rows, ranks)
    return rows.float()
