"""The rows of a set of scores for scores.jsonl, and what each number cannot say here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from stackgan_dist.classifiers.image_encoder import ImageEncoder
from stackgan_dist.scores import intervals
from stackgan_dist.scores.comparison import DENSITY, Comparison
from stackgan_dist.scores.diversity import Diversity
from stackgan_dist.scores.intervals import IntervalOf
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.measure import Scores
from stackgan_dist.scores.real_side import RealSide

ROWS = ("inception", "frechet", "kernel", "neighbours", "memorisation", "r precision", "diversity")
"""The scores of a run by its classifier in the order of their rows, which are the last of a set in scores.jsonl."""
_MEANINGLESS_R_PRECISION = 2.0
"""A share of real pictures below so many times chance shows nothing."""

Row = dict[str, Any]


def report_rows(
    scores: Scores, real: RealSide | None, judges: Judges, identity: Mapping[str, Any], wrong: int, seed: int
) -> list[Row]:
    """A row for each score: its numbers, `notes` on what they cannot say, then network and `identity`.

    `real`: None where the real side is a statistics file. `wrong`: sentences that R-precision held a picture's own
    against. The rows by other encoders come before the classifier's.
    """
    asked = int(identity["protocol"]["wrong_captions"])
    rows: list[Row] = []
    for number, encoder in reversed(list(enumerate(judges.spaces))):
        own: list[Row] = []
        if number == 0:
            own.append(_inception_row(scores, real, encoder, seed))
            if len(scores.class_matches):
                own.append(_class_row(scores.class_matches, real, judges, seed))
        own += _comparison_rows(scores.spaces[number], encoder)
        if judges.clip is not None and number == judges.clip.space and scores.clip_scores is not None:
            own.append(_clip_row(scores, real, seed))
            if scores.clip_matches is not None:
                own.append(_clip_r_precision_row(scores.clip_matches, scores.clip_wrong, real, asked, seed))
        if number == 0 and scores.matches is not None:
            own.append(_r_precision_row(scores, real, wrong, asked, seed))
        if scores.diversity is not None:
            own.append(_diversity_row(scores.diversity, real, number, seed))
        rows += [{**row, **encoder.describe(), **identity} for row in own]
    return rows


def _inception_row(scores: Scores, real: RealSide | None, classifier: ImageEncoder, seed: int) -> Row:
    score = scores.inception
    row: Row = {
        "score": "inception",
        **asdict(score),
        "interval": intervals.of_mean(torch.tensor(score.per_split, dtype=torch.float64), seed, IntervalOf.INCEPTION),
    }
    notes = []
    if real is not None:
        row |= {"mean_of_real_pictures": real.inception.mean, "mean_of_noise": real.inception_of_noise.mean}
        if classifier.is_stand_in and score.mean > real.inception.mean:
            notes.append(
                f"it is above that of real pictures ({real.inception.mean:.2f}), so a stand-in's classes are not what "
                "these pictures differ in: it does not rank generators here"
            )
        if real.inception.mean < 2 * real.inception_of_noise.mean:
            notes.append(
                f"real pictures reach {real.inception.mean:.2f}, noise {real.inception_of_noise.mean:.2f}: the "
                "classifier sees little in either"
            )
    return {**row, "notes": notes}


def _class_row(matches: Tensor, real: RealSide | None, judges: Judges, seed: int) -> Row:
    of_real = real.class_agreement if real is not None else None
    return {
        "score": "class agreement",
        "share": matches.mean().item(),
        "interval": intervals.of_mean(matches, seed, IntervalOf.CLASSES),
        **({} if of_real is None else {"share_of_real_pictures": of_real}),
        "pictures": len(matches),
        "chance": 1 / judges.classifier.classes,
        "notes": [],
    }


def _comparison_rows(found: Comparison, encoder: ImageEncoder) -> list[Row]:
    width, samples = encoder.feature_width, found.samples
    fewer = min(samples, found.real_pictures or samples)
    notes = []
    if fewer <= width:
        notes.append(
            f"fewer pictures ({fewer:,}) than features ({width:,}): the covariance is singular and the distance far "
            "too large; compare it with others of as many pictures only"
        )
    rows: list[Row] = [
        {
            "score": "frechet",
            "distance": found.frechet.value,
            "interval": found.frechet.interval,
            "of_infinitely_many": found.frechet_of_infinitely_many,
            "samples": samples,
            "real_pictures": found.real_pictures,
            "notes": notes,
        }
    ]
    if found.kernel is None:
        return rows
    single = ["one block only: its spread is not known"] if len(found.kernel.per_block) == 1 else []
    rows.append({"score": "kernel", **asdict(found.kernel), "interval": found.kernel_interval, "notes": single})
    if found.cmmd is not None:
        rows.append({"score": "cmmd", "distance": found.cmmd, "compared": found.compared, "notes": []})
    few = [] if found.shares else [f"fewer than {DENSITY + 1} pictures: they have no neighbourhoods"]
    shares: Row = {name: estimate.value for name, estimate in found.shares.items()}
    shares |= {f"{name}_interval": estimate.interval for name, estimate in found.shares.items()}
    rows.append({"score": "neighbours", **shares, "compared": found.compared, "notes": few})
    if (memory := found.memorisation) is not None:
        rows.append(
            {
                "score": "memorisation",
                "nearer_than_held_out": memory.nearer.value,
                "interval": memory.nearer.interval,
                "mean_distance": memory.distance,
                "mean_distance_of_held_out": memory.distance_of_held_out,
                "training_pictures": memory.training_pictures,
                "notes": [],
            }
        )
    return rows


def _clip_row(scores: Scores, real: RealSide | None, seed: int) -> Row:
    assert scores.clip_scores is not None
    of_real = {} if real is None or real.clip_score is None else {"mean_of_real_pictures": real.clip_score}
    interval = intervals.of_mean(scores.clip_scores, seed, IntervalOf.CLIP)
    return {
        "score": "clip score", "mean": scores.clip_scores.mean().item(), "interval": interval, **of_real, "notes": []
    }  # fmt: skip


def _clip_r_precision_row(matches: Tensor, wrong: int, real: RealSide | None, asked: int, seed: int) -> Row:
    of_real = real.clip_r_precision if real is not None else None
    return {
        "score": "clip r precision",
        "share": matches.mean().item(),
        "interval": intervals.of_mean(matches, seed, IntervalOf.CLIP_R_PRECISION),
        **({} if of_real is None else {"share_of_real_pictures": of_real}),
        "wrong_sentences": wrong,
        "notes": _fewer(wrong, asked),
    }


def _fewer(wrong: int, asked: int) -> list[str]:
    said = f"only {wrong} other sentences to hold it against, not {asked}: chance is {1 / (1 + wrong):.1%}"
    return [said] if wrong < asked else []


def _r_precision_row(scores: Scores, real: RealSide | None, wrong: int, asked: int, seed: int) -> Row:
    assert scores.matches is not None
    assert real is not None
    chance = 1 / (1 + wrong)
    notes = _fewer(wrong, asked)
    if real.r_precision < _MEANINGLESS_R_PRECISION * chance:
        notes.append(f"real pictures reach {real.r_precision:.1%}, chance is {chance:.1%}: it can show nothing here")
    return {
        "score": "r precision",
        "share": scores.matches.mean().item(),
        "interval": intervals.of_mean(scores.matches, seed, IntervalOf.R_PRECISION),
        "share_of_real_pictures": real.r_precision,
        "wrong_sentences": wrong,
        "notes": notes,
    }


def _diversity_row(found: Diversity, real: RealSide | None, space: int, seed: int) -> Row:
    of_real = real.diversity if real is not None else None

    def values(column: int, name: str) -> Row:
        what = IntervalOf.DIVERSITY_OF_FEATURES if column else IntervalOf.DIVERSITY
        return {
            name: found.of(column),
            f"{name}_interval": intervals.of_mean(found.values[:, column], seed, what),
            f"{name}_of_real_pictures": of_real.of(column) if of_real is not None else None,
        }

    return {
        "score": "diversity",
        **values(0, "deviation"),
        **values(1 + space, "distance"),
        "sentences": len(found.values),
        "notes": [],
    }
