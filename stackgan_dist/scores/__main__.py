"""All scores of a run, or of pictures that another system generated.

    torchrun [--nproc-per-node N] -m stackgan_dist.scores runs/demo
    torchrun [--nproc-per-node N] -m stackgan_dist.scores --pictures FOLDER --against REAL

The flags of the second form are shown by `scores --pictures --help-all`.

Inception Score, Frechet distance (FID with the FID network's weights), kernel distance (KID), precision, recall,
density, coverage, nearness to training pictures and R-precision, of one pass over numbered samples, and how much the
pictures of one sentence differ: any number of ranks gives the same scores. With --encoder the distances in the features
of DINOv2 or CLIP, CLIP scores and R-precision by CLIP. With --watch it scores every checkpoint of a run while that
trains, into the run's TensorBoard, until the run is done. The built-in classifier needs no download but is a stand-in,
whose scores must not stand beside published ones.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, Any

import tyro

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.distributed.collectives import one_thread_per_rank
from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.errors import UserError
from stackgan_dist.machine import peak_memory_bytes
from stackgan_dist.ranges import Range
from stackgan_dist.runs.checkpoint import FoundCheckpoint
from stackgan_dist.runs.exported import is_exported
from stackgan_dist.runs.folder import RunFolder, find_run
from stackgan_dist.runs.score_rows import append_score, recorded_scores
from stackgan_dist.runs.trained import trained_from
from stackgan_dist.runs.watch import new_checkpoints
from stackgan_dist.scores.inception import InceptionScoreSums
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.measure import RunScores
from stackgan_dist.scores.others import PictureOptions, score_pictures
from stackgan_dist.scores.protocol import ScoreProtocol
from stackgan_dist.scores.real_side import kept_folder
from stackgan_dist.scores.rows import ROWS, Row, report_rows
from stackgan_dist.scores.screen import as_text, named
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
    encoder: tuple[str, ...] = ()
    """Encoders of pictures whose features are compared too: folders of a DINOv2 or a CLIP as Hugging Face has them, or
    further classifiers. With a CLIP there are the CLIP score and R-precision by CLIP."""
    keep_real: str = "default"
    """The folder or URL where what is measured of real pictures is kept, for other scores on the same data. `default`
    is a folder in the user's cache, `none` nowhere."""
    watch: bool = False
    """Score every checkpoint of the run, those to come too, until the run is done."""
    poll_s: Annotated[float, Range(above=0)] = 10.0
    """With --watch, a new checkpoint is looked for every so many seconds; it has to be below --timeout-s."""


@front_door
def main() -> None:
    """Parse, validate, connect, then for each checkpoint: generate and measure, report."""
    given = sys.argv[1:]
    if any(word.partition("=")[0] == "--pictures" for word in given):
        # --help-all may stand where the pictures would.
        arguments = next(([word] for word in given if word in ("-h", "--help", "--help-all")), given)
        score_pictures(parse_options(PictureOptions, "scores", __doc__, arguments=arguments))
        return
    options = parse_options(Options, "scores", __doc__, run_first=True)
    subject, protocol = options.subject, options.protocol
    if options.poll_s >= subject.timeout_s:
        raise UserError(f"--poll-s is {options.poll_s}, it must be below --timeout-s {subject.timeout_s}")
    if options.watch and is_exported(Folder.at(subject.run)):
        raise UserError(f"{subject.run} is an exported generator, which no more checkpoints come to; leave out --watch")
    first = None if options.watch else open_subject(subject)
    folder = find_run(subject.run) if first is None else first.trained.folder
    # Looked at before ranks wait for each other: a wrong file or a missing package is the commonest mistake.
    judges = Judges.load(options.classifier, options.encoder)
    judges.check()
    InceptionScoreSums(protocol.samples, protocol.splits, judges.classifier.classes)

    with process_group(subject.timeout_s) as ranks:
        one_thread_per_rank(ranks)
        judges = Judges.load(options.classifier, options.encoder, ranks.device)
        run: RunScores | None = None
        for opened in [first] if first else _appearing(options, folder, judges, ranks):
            run = run or RunScores(opened, judges, protocol, ranks, kept_folder(options.keep_real))
            scores = run.score(opened)
            if ranks.is_main:
                identity = _identity(opened, protocol)
                rows = report_rows(scores, run.real, judges, identity, run.wrong, subject.seed)
                _report([_with_training(row, run.other_training) for row in rows], opened)


def _appearing(options: Options, folder: RunFolder, judges: Judges, ranks: Ranks) -> Iterator[OpenSubject]:
    """The run's checkpoints as they are committed, without those that were scored in the same way before."""

    @lru_cache(maxsize=1)  # rank 0 asks twice: whether it is known, and for the score
    def opened(found: FoundCheckpoint) -> OpenSubject:
        trained = trained_from(found, folder, raw=options.subject.weights == "raw")
        return open_subject(options.subject, trained)

    def is_known(found: FoundCheckpoint) -> bool:
        return _is_recorded(folder, judges, _identity(opened(found), options.protocol))

    for found in new_checkpoints(folder, is_known, options.poll_s, ranks):
        yield opened(found)


def _identity(opened: OpenSubject, protocol: ScoreProtocol) -> dict[str, Any]:
    return {"protocol": dataclasses.asdict(protocol), **opened.describe()}


def _is_recorded(folder: RunFolder, judges: Judges, identity: dict[str, Any]) -> bool:
    """Whether every judge has its rows; an unfinished set, whose last row is not there, is made again."""
    decisive = identity.keys() - {"time", "checkpoint", "captions"}  # paths may be written in another way
    known = {name: identity[name] for name in decisive}
    found = [recorded_scores(folder.root, {**space.describe(), **known}) for space in judges.spaces]
    return all(found) and ROWS[-1] in found[0]


def _with_training(row: Row, other: str | None) -> Row:
    """`row`, if training pictures count in it, with a note where the run was trained on others."""
    if other is None or row["score"] not in ("memorisation", "r precision"):
        return row
    note = f"the training pictures of {other} are not those that the run was trained on"
    return {**row, "notes": [*row["notes"], note]}


def _report(rows: list[Row], opened: OpenSubject) -> None:
    """Record, plot and print."""
    run, step = opened.trained.folder.root, opened.trained.step
    for row in rows:
        file = append_score(run, row)
    _plot([row for row in rows if row["weights_sha256"] == rows[-1]["weights_sha256"]], step, run)
    print(f"{opened.trained.checkpoint}, captions of {opened.captions.url}")
    print(as_text(rows))
    print(f"  recorded in {file}; peak memory of this rank {peak_memory_bytes() / 1e6:,.0f} MB", flush=True)


def _plot(rows: list[Row], step: int, run: Folder) -> None:
    """Write the scores for TensorBoard, into a folder of their own below the run's.

    TensorBoard follows only the newest event file of each folder, and the run may still be writing its own.
    """
    from stackgan_dist.runs.event_file import scalars_file  # tensorboard, which rank 0 alone needs

    folder = run / "scores"
    curves = {f"score/{name}": value for name, value in named(rows).items()}
    name, content = scalars_file(folder, curves, step)
    folder.write(name, content)


if __name__ == "__main__":
    main()
