"""Generating and measuring pictures for the scores: in turns, and the next batch made while one is classified.

One rank's pass over the samples, with a generator of random weights: what `stackgan_dist.scores` does for each of them,
without what it does once. Without --data it takes the captions of painted birds, packed for the occasion.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from stackgan_dist.bench.machine import Threads, describe_machine, in_own_process, pick_device
from stackgan_dist.bench.painted_set import painted_set
from stackgan_dist.bench.report import Report, Table
from stackgan_dist.bench.timing import in_turns
from stackgan_dist.classifiers.classifier import load_classifier
from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import stored_size
from stackgan_dist.generation.generate import GeneratedBatch, GeneratedPictures
from stackgan_dist.machine import cores_of_this_rank
from stackgan_dist.models import ModelConfig, build_generator
from stackgan_dist.models.config import Width
from stackgan_dist.overlap import made_ahead
from stackgan_dist.ranges import Range, check_fields
from stackgan_dist.runs.utilisation import peak_flops, peak_memory_of
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.picture_sums import PictureSums
from stackgan_dist.scores.protocol import ScoreProtocol
from stackgan_dist.scores.r_precision import Candidates, TextMap, candidate_captions

_LONGER = 3
"""Times as many samples, to see that memory does not grow with them."""


@dataclass(frozen=True)
class Options:
    """What to generate and classify, and how often."""

    stage: Literal[1, 2] = 1
    """The stage that generates: 1 makes 64 pixels, 2 makes 256 pixels with a Stage-I inside."""
    width: Width = 128
    """The width of the generator, as --model.generator-width; the paper's is 128."""
    batch: Annotated[int, Range(at_least=1)] = 32
    """The number of samples in a batch, as --batch-size of the scores."""
    batches: Annotated[int, Range(at_least=1)] = 6
    """The number of batches in a repeat; nothing hides the generation of the first."""
    repeats: Annotated[int, Range(at_least=1)] = 3
    """The number of timed passes of each way, in turns."""
    classifier: str = "efficientnet-lite0"
    """The network that judges, as --classifier of the scores."""
    data: str | None = None
    """The packed set whose captions of the test split to generate from, e.g. data/oxford102. By default painted birds
    are packed for the occasion."""
    pictures: Annotated[int, Range(at_least=1)] = 256
    """Without --data, this many painted birds are packed."""
    threads: Threads = 1
    """The CPU threads of torch, for generating and for classifying each; a rank of several has 1."""
    device: str | None = None
    """The device, cpu or cuda. The default is cuda where there is one."""
    memory: bool = True
    """Also take the peak of memory of each way, in processes of their own."""
    json: str | None = None
    """Also write the report to this file."""

    @property
    def model(self) -> ModelConfig:
        """The model of the generator."""
        return ModelConfig(stage=self.stage, image_size=64 if self.stage == 1 else 256, generator_width=self.width)


class Pass:
    """One rank's pass over samples, as often as asked for.

    Args:
        options: what to generate and classify.
        data: the packed set.
        device: where.
    """

    def __init__(self, options: Options, data: str, device: torch.device) -> None:
        self._options, self._device = options, device
        captions = open_packed(DataConfig(url=data), options.model.image_size, "test").captions()
        self._captions, dim = captions, captions.index.text_dim
        torch.manual_seed(0)
        self._generator = build_generator(options.model, dim).to(device).eval().requires_grad_(False)
        self._classifier = load_classifier(options.classifier, device)
        pool = candidate_captions(captions, ScoreProtocol().wrong_pool, seed=0)
        texts = torch.stack([torch.from_numpy(caption.embedding) for caption in pool])
        # Any map costs the same.
        width = self._classifier.feature_width
        self._map = TextMap(torch.zeros(width), torch.zeros(dim), torch.randn(width, dim, dtype=torch.float64))
        # Sentences without classes leave no wrong ones of other classes, of few pictures fewer than 99.
        names = [caption.class_name for caption in pool]
        wrong = min(ScoreProtocol().wrong_captions, len(names) - max(map(names.count, names)))
        self._candidates = Candidates(texts, names, wrong, seed=0)

    def generated(self, batches: int) -> Iterator[GeneratedBatch]:
        """So many batches of samples."""
        samples, size = batches * self._options.batch, self._options.batch
        pictures = GeneratedPictures(self._generator, self._options.model, self._captions, samples, size, seed=0)
        return pictures.batches(0, 1)

    def measured(self, generated: Iterable[GeneratedBatch], batches: int) -> PictureSums:
        """The sums of `generated`, which are so many batches."""
        samples, kept = batches * self._options.batch, self._options.batch
        sums = PictureSums(Judges(self._classifier), samples, 1, kept, partial(self._candidates.matches, self._map))
        for batch in generated:
            sums.add(batch.numbers, batch.images, batch.captions)
        return sums

    def in_turns(self, batches: int) -> PictureSums:
        """A batch is generated, then measured."""
        return self.measured(self.generated(batches), batches)

    def overlapped(self, batches: int) -> PictureSums:
        """As the scores do it."""
        return self.measured(made_ahead(self.generated(batches), self._device), batches)


def run(options: Options) -> Report:
    """Time, count, weigh."""
    check_fields(options)
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    sizes = [stored_size(options.model.image_size)]
    given = painted_set(sizes, options.pictures, "test") if options.data is None else nullcontext(options.data)
    with given as data:
        return Report(describe_machine(device), [_table(options, data, device)])


def _table(options: Options, data: str, device: torch.device) -> Table:
    batches, work = options.batches, Pass(options, data, device)
    # Also what warms up: from here on all that is timed has been done once.
    with FlopCounterMode(display=False) as generating:
        kept = list(work.generated(batches))
    with FlopCounterMode(display=False) as measuring:
        sums = work.measured(kept, batches)
    equal = _equal(sums, work.overlapped(batches))
    flop = {"generating alone": generating.get_total_flops(), "measuring alone": measuring.get_total_flops()}
    flop |= dict.fromkeys(("in turns", "overlapped"), sum(flop.values()))
    ways: dict[str, Callable[[], object]] = {
        "generating alone": lambda: [None for _ in work.generated(batches)],
        "measuring alone": partial(work.measured, kept, batches),
        "in turns": partial(work.in_turns, batches),
        "overlapped": partial(work.overlapped, batches),
    }
    timings = in_turns(ways, repeats=options.repeats, warm_up=0, device=device)
    cores = cores_of_this_rank() if device.type == "cpu" else 1
    peak = peak_flops(device, torch.float32) * (cores / options.threads if device.type == "cpu" else 1)
    rows = []
    for name, timing in timings.items():
        row: dict[str, Any] = {"way": name, **timing.cells(batches * options.batch)}
        row["times in turns"] = timing.times_faster_than(timings["in turns"])
        if device.type == "cpu":
            row["CPU s"] = statistics.median(timing.cpu_seconds)
        row |= {
            "GFLOP": flop[name] / 1e9,
            "GFLOP/s": flop[name] / timing.median / 1e9,
            "share of peak": flop[name] / timing.median / peak,
        }
        if options.memory:
            for column, count in (("peak MB", batches), (f"of {_LONGER} times as many", _LONGER * batches)):
                both = name in ("in turns", "overlapped")
                row[column] = in_own_process(_peak_of, name, options, data, count) / 1e6 if both else None
        rows.append(row)
    kind = "the device" if device.type == "cuda" else f"{cores} core(s)"
    return Table(
        f"Scores of {batches * options.batch} samples of {options.model.title}, width {options.width}, "
        f"{options.model.image_size} pixels, in batches of {options.batch}, by {options.classifier}, {device.type}, "
        f"{options.threads} thread(s)",
        rows,
        [
            "Measuring: classifying, and adding to the sums of the four scores. The sums of both ways are "
            f"{'equal bit for bit' if equal else 'NOT EQUAL'}.",
            "GFLOP: of matrix products and convolutions, 2 for a multiply-add, as torch's FlopCounterMode counts them, "
            f"the float64 sums among them. The peak is {peak / 1e9:,.0f} GFLOP/s in float32, that of {kind}, by a "
            "square product measured now (on CPUs by CPU time); GFLOP/s are by the clock on the wall.",
            *(["Peaks of memory are of whole processes that do nothing else."] if options.memory else []),
        ],
    )


def _equal(one: PictureSums, other: PictureSums) -> bool:
    (space,), (other_space,) = one.spaces, other.spaces
    rows = space.first.count
    pairs = (
        (one.inception.tensor, other.inception.tensor),
        (space.frechet.tensor, other_space.frechet.tensor),
        (space.first.rows(0, rows), other_space.first.rows(0, rows)),
        (one.matches, other.matches),
    )
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


def _peak_of(way: str, options: Options, data: str, batches: int) -> int:
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    work = Pass(options, data, device)
    (work.overlapped if way == "overlapped" else work.in_turns)(batches)
    return peak_memory_of(device)
