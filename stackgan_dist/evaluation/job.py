"""What the distributed measuring jobs share: the run and captions to measure, progress, sums over ranks, the report."""

from __future__ import annotations

import datetime
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeVar

import torch
import torch.distributed as dist
import tyro
from torch import Tensor

from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.data.patience import StoreError
from stackgan_dist.data.storage import append_line, join, read_bytes
from stackgan_dist.distributed.process_group import Ranks, ranks_from_environment
from stackgan_dist.drawing.draw import Drawing
from stackgan_dist.errors import UserError
from stackgan_dist.training.trained import Trained, load_trained

T = TypeVar("T")


class Numbered(Protocol):
    """A batch of anything that is numbered."""

    @property
    def numbers(self) -> Tensor:
        """(n,), int64."""
        ...


B = TypeVar("B", bound=Numbered)

_PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True)
class Subject:
    """What to measure."""

    run: str
    """A run, a folder with the runs of both stages (the last stage is taken), or a checkpoint."""
    data: str | None = None
    """Packed data set with the captions (default: the run's own)."""
    split: str = "test"
    """Its split; the paper scores captions of classes that were not trained on."""
    weights: Literal["ema", "raw"] = "ema"
    """The generator's moving average, or its weights as they were at the last step."""
    seed: int = 0
    """Chooses captions and noise. Sample k of a score is the same on any number of ranks."""
    batch_size: int = 64
    """Samples per batch; compare scores of equal batch sizes, since kernels round differently."""
    timeout_s: float = 300.0
    """A rank that does not answer for this long is taken for lost."""


@dataclass(frozen=True)
class OpenSubject:
    """A subject, found and checked."""

    subject: Subject
    trained: Trained
    captions: PackedSet

    def drawing(self, samples: int, ranks: Ranks) -> Drawing:
        """The drawing of `samples` samples."""
        return Drawing(
            self.trained.generator(ranks.device),
            self.trained.config.model,
            self.captions.captions(),
            samples,
            self.subject.batch_size,
            self.subject.seed,
        )

    def training(self) -> PackedSet:
        """The split that the run was trained on, of the data set with the captions; UserError if it is not there."""
        config = self.trained.config
        return open_packed(replace(config.data, url=self.subject.data or config.data.url), config.model.image_size)

    def describe(self) -> dict[str, Any]:
        """What every reported score carries about its subject."""
        return {
            "checkpoint": self.trained.checkpoint,
            "step": self.trained.step,
            "weights": self.subject.weights,
            "image_size": self.trained.config.model.image_size,
            "captions": self.captions.url,
            "captions_digest": self.captions.index.digest,
            "seed": self.subject.seed,
            "batch_size": self.subject.batch_size,
            "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }


def open_subject(subject: Subject, trained: Trained | None = None) -> OpenSubject:
    """Find the run's newest good checkpoint, unless `trained` is one already, and its captions.

    Raises UserError when they are missing or do not fit.
    """
    trained = trained or load_trained(subject.run, lambda message: None, raw=subject.weights == "raw")
    data = replace(trained.config.data, url=subject.data or trained.config.data.url)
    captions = open_packed(data, trained.config.model.image_size, subject.split)
    ours, theirs = captions.index, trained.data
    if (ours.text_encoder, ours.text_dim) != (theirs.text_encoder, theirs.text_dim):
        raise UserError(
            f"{captions.url} has texts of {ours.text_encoder} ({ours.text_dim}), the run was trained on "
            f"{theirs.text_encoder} ({theirs.text_dim}); pack it with --encoder {theirs.text_encoder}"
        )
    return OpenSubject(subject, trained, captions)


def with_progress(batches: Iterator[B], what: str, total: int, ranks: Ranks) -> Iterator[B]:
    """`batches`, with a line on rank 0 now and then about how far the job is."""
    begin = last = time.monotonic()
    done = 0
    for batch in batches:
        yield batch
        done = min(total, done + len(batch.numbers) * ranks.world_size)
        now = time.monotonic()
        if ranks.is_main and now - last > _PROGRESS_EVERY_S:
            last = now
            speed = done / (now - begin)
            left_s = (total - done) / speed
            print(f"{what}: {done:,}/{total:,} samples, {speed:,.0f} img/s, {left_s:.0f} s left", flush=True)


def sum_over_ranks(tensor: Tensor, ranks: Ranks) -> None:
    """Add up `tensor` of all ranks, in place."""
    if ranks.distributed:
        on_device = tensor.to(ranks.device)
        dist.all_reduce(on_device)
        tensor.copy_(on_device)


def append_score(folder: str, row: dict[str, Any]) -> str:
    """Add a score, with everything that identifies it, to the run's scores.jsonl; returns the file.

    Raises UserError, with the score, when it cannot be written there.
    """
    # JSON has no NaN.
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
    file, line = join(folder, "scores.jsonl"), json.dumps(known, allow_nan=False)
    try:
        append_line(file, line)
    except (OSError, StoreError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot write to {file}: {reason}; the score is not lost:\n{line}") from error
    return file


def recorded_scores(folder: str, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The newest row of each score in the run's scores.jsonl with this `identity`, by the score's name."""
    try:
        rows = [json.loads(line) for line in read_bytes(join(folder, "scores.jsonl")).splitlines()]
    except FileNotFoundError:
        return {}
    return {row["score"]: row for row in rows if all(row.get(name) == value for name, value in identity.items())}


def parse_options(options: type[T], module: str, description: str | None) -> T:
    """The command line of a measuring job, whose run may be given as `RUN` or `--run RUN`.

    torchrun under Python 3.11 stops at `--run`, even behind the module's name, because it might abbreviate one of its
    own flags.
    """
    arguments = sys.argv[1:]
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--run", *arguments]
    is_main = ranks_from_environment()[0] == 0
    return tyro.cli(
        options, args=arguments, prog=f"python -m {module}", description=description, console_outputs=is_main
    )


def check_counts(samples: int, batch_size: int) -> None:
    """UserError unless there is something to draw, in batches that hold something."""
    for flag, count in (("--samples", samples), ("--batch-size", batch_size)):
        if count < 1:
            raise UserError(f"{flag} is {count}, it must be at least 1")


def one_thread_per_rank(ranks: Ranks) -> None:
    """Keep ranks that share a CPU from fighting for its cores."""
    if ranks.distributed and ranks.device.type == "cpu":
        torch.set_num_threads(1)
