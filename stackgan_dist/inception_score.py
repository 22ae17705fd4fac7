"""Inception Score of a run: `torchrun [--nproc-per-node N] -m stackgan_dist.inception_score runs/demo`.

Samples are numbered, so any number of ranks gives the same score. The classifier is part of the score: the built-in
one needs no download but is a stand-in, whose scores must not stand beside published ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated

import tyro

from stackgan_dist.classifiers.classifier import load_classifier
from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.distributed.collectives import one_thread_per_rank, sum_over_ranks, with_progress
from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.overlap import made_ahead
from stackgan_dist.ranges import Range
from stackgan_dist.runs.score_rows import append_score
from stackgan_dist.scores.inception import InceptionScoreSums
from stackgan_dist.scores.subject import Subject, open_subject


@dataclass(frozen=True)
class Options:
    """What to score, and how."""

    subject: Annotated[Subject, tyro.conf.arg(name="")]
    samples: Annotated[int, Range(at_least=1)] = 30_000
    """The number of pictures to generate; the paper's is 30,000."""
    splits: Annotated[int, Range(at_least=1)] = 10
    """The samples are divided into this many consecutive parts; the score is the mean of theirs, its error their
    standard deviation."""
    classifier: str = "efficientnet-lite0"
    """The network that judges: efficientnet-lite0, a stand-in that needs no download, or the path of an Inception-v3
    weights file."""


@front_door
def main() -> None:
    """Parse, validate, connect, generate and classify, add up, report."""
    options = parse_options(Options, "inception_score", __doc__, run_first=True)
    subject = open_subject(options.subject)
    # Looked at before ranks wait for each other: a wrong file or a missing package is the commonest mistake.
    InceptionScoreSums(options.samples, options.splits, load_classifier(options.classifier).classes)

    with process_group(options.subject.timeout_s) as ranks:
        one_thread_per_rank(ranks)
        classifier = load_classifier(options.classifier, ranks.device)
        sums = InceptionScoreSums(options.samples, options.splits, classifier.classes)
        pictures = subject.generated(options.samples, ranks)
        batches = made_ahead(pictures.batches(ranks.rank, ranks.world_size), ranks.device)
        for batch in with_progress(batches, "inception score", options.samples, ranks):
            sums.add(batch.numbers, classifier.logits(batch.images))
        sum_over_ranks(sums.tensor, ranks)

        if ranks.is_main:
            score = sums.result()
            row = {"score": "inception", **asdict(score), **classifier.describe(), **subject.describe()}
            file = append_score(subject.trained.folder.root, row)
            print(f"Inception Score {score}\n  of {subject.trained.checkpoint}, captions of {subject.captions.url}")
            print(f"  by {classifier.name}: {classifier.comparable_with}\n  recorded in {file}")


if __name__ == "__main__":
    main()
