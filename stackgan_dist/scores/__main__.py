"""All scores of a run: `torchrun [--nproc-per-node N] -m stackgan_dist.scores runs/demo`.

Inception Score, Frechet distance (FID with the FID network's weights), kernel distance (KID) and R-precision, of one
pass over numbered samples, and how much the pictures of one sentence differ: any number of ranks gives the same scores.
With --watch it scores every checkpoint of a run while that trains, into the run's TensorBoard, until the run is done.
The built-in classifier needs no download but is a stand-in, whose scores must not stand beside published ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import tyro

from stackgan_dist.classifiers.classifier import Classifier, load_classifier
from stackgan_dist.distributed.collectives import one_thread_per_rank
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.doors import front_door, parse_options
from stackgan_dist.errors import UserError
from stackgan_dist.machine import peak_memory_bytes
from stackgan_dist.ranges import Range
from stackgan_dist.runs.checkpoint import FoundCheckpoint
from stackgan_dist.runs.folder import RunFolder, find_run
from stackgan_dist.runs.score_rows import append_score, recorded_scores
from stackgan_dist.runs.trained import trained_from
from stackgan_dist.runs.watch import new_checkpoints
from stackgan_dist.scores.inception import InceptionScoreSums
from stackgan_dist.scores.measure import ROWS, RealSide, ScoreProtocol, Scores, report_rows
from stackgan_dist.scores.subject import OpenSubject, Subject, open_subject
from stackgan_dist.storage.folder import Folder


@dataclass(frozen=True)
class Options:
    """What to score, and how."""

    subject: Annotated[Subject, tyro.conf.arg(name="")]
    protocol: Annotated[ScoreProtocol, tyro.conf.arg(name="")] = field(default_factory=ScoreProtocol)
    classifier: str = "efficientnet-lite0"
    """The network that judges: efficientnet-lite0, a stand-in that needs no download, or a weights file, which is an
    Inception-v3 or what stackgan_dist.train_classifier wrote."""
    keep_real: str | None = None
    """The folder or URL where what is measured of real pictures is kept, for other runs that are scored alike on the
    same data. By default it is measured again each time."""
    watch: bool = False
    """Score every checkpoint of the run, those to come too, until the run is done."""
    poll_s: Annotated[float, Range(above=0)] = 10.0
    """With --watch, a new checkpoint is looked for every so many seconds; it has to be below --timeout-s."""


@front_door
def main() -> None:
    """Parse, validate, connect, then for each checkpoint: generate and measure, report."""
    options = parse_options(Options, "scores", __doc__, run_first=True)
    subject, protocol = options.subject, options.protocol
    if options.poll_s >= subject.timeout_s:
        raise UserError(f"--poll-s is {options.poll_s}, it must be below --timeout-s {subject.timeout_s}")
    first = None if options.watch else open_subject(subject)
    folder = find_run(subject.run) if first is None else first.trained.folder
    # Looked at before ranks wait for each other: a wrong file or a missing package is the commonest mistake.
    InceptionScoreSums(protocol.samples, protocol.splits, load_classifier(options.classifier).classes)

    with process_group(subject.timeout_s) as ranks:
        one_thread_per_rank(ranks)
        classifier = load_classifier(options.classifier, ranks.device)
        real: RealSide | None = None
        for opened in [first] if first else _appearing(options, folder, classifier, ranks):
            real = real or RealSide(opened, classifier, protocol, ranks, options.keep_real)
            scores = real.score(opened)
            if ranks.is_main:
                _report(scores, opened, classifier, protocol)


def _appearing(options: Options, folder: RunFolder, classifier: Classifier, ranks: Ranks) -> Iterator[OpenSubject]:
    """The run's checkpoints as they are committed, without those that were scored in the same way before."""

    def opened(found: FoundCheckpoint) -> OpenSubject:
        trained = trained_from(found, folder, raw=options.subject.weights == "raw")
        return open_subject(options.subject, trained)

    def is_known(found: FoundCheckpoint) -> bool:
        return _is_recorded(folder, _identity(opened(found), classifier, options.protocol))

    for found in new_checkpoints(folder, is_known, options.poll_s, ranks):
        yield opened(found)


def _identity(opened: OpenSubject, classifier: Classifier, protocol: ScoreProtocol) -> dict[str, Any]:
    return {"protocol": dataclasses.asdict(protocol), **classifier.describe(), **opened.describe()}


def _is_recorded(folder: RunFolder, identity: dict[str, Any]) -> bool:
    decisive = identity.keys() - {"time", "checkpoint", "captions"}  # paths may be written in another way
    found = recorded_scores(folder.root, {name: identity[name] for name in decisive})
    return ROWS[-1] in found  # an unfinished set is made again


def _report(scores: Scores, opened: OpenSubject, classifier: Classifier, protocol: ScoreProtocol) -> None:
    """Record, plot and print."""
    run, step = opened.trained.folder.root, opened.trained.step
    for row in report_rows(scores, _identity(opened, classifier, protocol)):
        file = append_score(run, row)
    _plot(scores, step, run)
    print(f"{opened.trained.checkpoint}, captions of {opened.captions.url}")
    print(
        f"  Inception Score    {scores.inception}; real pictures {scores.inception_of_real}; "
        f"noise {scores.inception_of_noise}"
    )
    print(f"  Frechet distance   {scores.frechet:.4g} ({scores.frechet_pictures:,} real pictures)")
    spread = "" if len(scores.kernel.per_block) == 1 else f" ± {scores.kernel.std:.2g}"
    print(f"  kernel distance    {scores.kernel.mean:.4g}{spread} (blocks of {scores.kernel.block:,})")
    print(
        f"  R-precision        {scores.r_precision:.1%} (real pictures {scores.r_precision_of_real:.1%}, "
        f"chance {1 / (1 + protocol.wrong_captions):.1%})"
    )
    real = "" if scores.diversity_of_real is None else f" (real pictures of one class {scores.diversity_of_real:.3f})"
    print(f"  diversity          {scores.diversity:.3f}{real}")
    print(f"  by {classifier.name}: {classifier.comparable_with}")
    print(f"  recorded in {file}; peak memory of this rank {peak_memory_bytes() / 1e6:,.0f} MB", flush=True)


def _plot(scores: Scores, step: int, run: Folder) -> None:
    """Write the scores for TensorBoard, into a folder of their own below the run's.

    TensorBoard follows only the newest event file of each folder, and the run may still be writing its own.
    """
    from stackgan_dist.runs.event_file import scalars_file  # tensorboard, which rank 0 alone needs

    folder = run / "scores"
    curves = {f"score/{name}": value for name, value in scores.named().items()}
    name, content = scalars_file(folder, curves, step)
    folder.write(name, content)


if __name__ == "__main__":
    main()
