"""What a score is of: a run or a checkpoint, and captions for it to generate from."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import tyro

from stackgan_dist.data.dataset import PackedSet, open_packed
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import UserError
from stackgan_dist.generation.generate import GeneratedPictures
from stackgan_dist.ranges import Range, Seed, Timeout
from stackgan_dist.runs.trained import Trained, load_trained


@dataclass(frozen=True)
class Subject:
    """What to measure."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """The run to measure: its folder, a folder with the runs of both stages (the last stage is taken), or a
    checkpoint. It may be given as --run RUN as well."""
    data: str | None = None
    """The packed data set with the captions. The default is the run's own."""
    split: str = "test"
    """The split of the captions; the paper scores captions of classes that were not trained on."""
    weights: Literal["ema", "raw"] = "ema"
    """ema takes the generator's moving average, raw its weights as they were at the last step."""
    seed: Seed = 0
    """The seed chooses captions and noise. Sample k of a score is the same on any number of ranks."""
    batch_size: Annotated[int, Range(at_least=1)] = 64
    """The number of samples in a batch; compare scores of equal batch sizes, since kernels round differently."""
    timeout_s: Timeout = 300.0
    """A rank that does not answer for this many seconds is taken for lost."""


@dataclass(frozen=True)
class OpenSubject:
    """A subject, found and checked."""

    subject: Subject
    trained: Trained
    captions: PackedSet

    def generated(self, samples: int, ranks: Ranks, per_caption: int = 1) -> GeneratedPictures:
        """`samples` pictures by the subject of its captions, `per_caption` of each."""
        return GeneratedPictures(
            self.trained.generator(ranks.device),
            self.trained.config.model,
            self.captions.captions(),
            samples,
            self.subject.batch_size,
            self.subject.seed,
            per_caption,
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
    trained = trained or load_trained(subject.run, lambda _: None, raw=subject.weights == "raw")
    data = replace(trained.config.data, url=subject.data or trained.config.data.url)
    captions = open_packed(data, trained.config.model.image_size, subject.split)
    ours, theirs = captions.index, trained.data
    if not theirs.reads_texts_of(ours):
        raise UserError(
            f"{captions.url} has texts of {ours.text_encoder} ({ours.text_dim}), the run was trained on "
            f"{theirs.text_encoder} ({theirs.text_dim}); pack it with --encoder {theirs.text_encoder}"
        )
    return OpenSubject(subject, trained, captions)
