"""How fast batches are made, by one process: JPEGs by Pillow, by simplejpeg, with texts from memory, all from memory.

And by a device that holds the set, for which this process only draws the random numbers. All ways make the same
batches (same rows, crops, flips, texts and noise), in turns. Beside them the floor: decoding the same JPEGs and nothing
else. Without --data it packs painted birds into a temporary folder first.
"""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from stackgan_dist.bench.machine import describe_machine, pick_device
from stackgan_dist.bench.painted_set import painted_set
from stackgan_dist.bench.report import Report, Table
from stackgan_dist.bench.timing import in_turns
from stackgan_dist.data.batch import Batch, BatchShape
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.decoded import SampleDecoder
from stackgan_dist.data.device_batches import DeviceBatches
from stackgan_dist.data.device_set import DeviceSet
from stackgan_dist.data.index import STORED_PER_CROPPED, Index, load_index
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.loader_processes import start_method
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.shard import OpenShards
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.machine import peak_memory_bytes
from stackgan_dist.pack.recipe import Side
from stackgan_dist.ranges import Range
from stackgan_dist.storage.files import join


@dataclass(frozen=True)
class Options:
    """What to load, and how often."""

    data: str | None = None
    """The folder with SIZE/index.json, e.g. data/oxford102/train. By default painted birds are packed for the
    occasion."""
    sizes: tuple[Side, ...] = (76, 304)
    """The stored sizes to load, in pixels; crops are 64 of 76."""
    batch_size: Annotated[int, Range(at_least=1)] = 64
    """The rows of a batch."""
    steps: Annotated[int, Range(at_least=1)] = 8
    """The number of batches in a repeat."""
    repeats: Annotated[int, Range(at_least=1)] = 5
    """The number of timed rounds."""
    pictures: Annotated[int, Range(at_least=1)] = 1024
    """Without --data, this many painted birds are packed."""
    memory_gb: Annotated[float, Range(at_least=0)] = 4.0
    """The gigabytes that the memory store may hold."""
    step_ms: Annotated[float, Range(at_least=0)] = 0.0
    """Also measure a worker process beside training steps of this many milliseconds; 0 leaves that out."""
    device: str | None = None
    """The device whose memory holds the set in one of the ways, cpu or cuda. The default is cuda where there is one."""
    json: str | None = None
    """Also write the report to this file."""


_FLOOR = "decoding alone"


class _PillowDecoder(SampleDecoder):
    """The plain way."""

    def pixels(self, encoded: bytes) -> NDArray[np.uint8]:
        """See SampleDecoder."""
        return np.asarray(Image.open(io.BytesIO(encoded)))


def run(options: Options) -> Report:
    """Measure; one table for each size."""
    torch.set_num_threads(1)
    device = pick_device(options.device)
    machine = describe_machine(device)
    given = nullcontext(options.data) if options.data is not None else painted_set(options.sizes, options.pictures)
    with given as folder:
        split = folder if options.data is not None else join(folder, "train")
        tables = [_table(options, join(split, str(size)), device) for size in options.sizes]
    return Report(machine, tables)


def _table(options: Options, url: str, device: torch.device) -> Table:
    index = load_index(url)
    plan = Plan([shard.samples for shard in index.shards], 0, options.batch_size)
    # Every timed round loads the same steps of an epoch, whose samples the warm-up has met.
    steps = range(min(options.steps, plan.steps_per_epoch))
    texts_bytes = index.samples * index.captions_per_image * index.text_dim * 2
    datasets = {
        "pillow": _dataset(index, plan, url, 0, _PillowDecoder(index)),
        "simplejpeg": _dataset(index, plan, url, 0),
        "texts in memory": _dataset(index, plan, url, texts_bytes),
        "all in memory": _dataset(index, plan, url, int(options.memory_gb * 1e9)),
    }
    ways = {name: partial(_load, dataset, steps) for name, dataset in datasets.items()}
    on_device = f"set on the {device.type} device"
    ways[on_device] = partial(_load, _held(index, plan, url, device), steps)
    ways[_FLOOR] = partial(_decode, SampleDecoder(index), _encoded(index, plan, url, steps))
    timings = in_turns(ways, repeats=options.repeats, device=device)
    images = len(steps) * options.batch_size
    rows: list[dict[str, Any]] = []
    for name, timing in timings.items():
        row: dict[str, Any] = {"way": name, **timing.cells(images)}
        row["images/CPU s"] = images / statistics.median(timing.cpu_seconds)
        row["times pillow in CPU s"] = timing.times_less_cpu_than(timings["pillow"])
        decodes = name not in ("all in memory", on_device)
        row["decoding, % of CPU s"] = 100 / timings[_FLOOR].times_less_cpu_than(timing) if decodes else None
        if options.step_ms:
            waits = name in datasets
            row["waiting, %"] = 100 * _waiting(datasets[name], steps, options.step_ms / 1000, device) if waits else None
        rows.append(row)
    return Table(
        f"Loader, {index.image_size} px, batches of {options.batch_size}, {index.text_encoder} texts of "
        f"{index.text_dim}",
        rows,
        [
            f"{index.samples} pictures of {url}; peak memory of this process {peak_memory_bytes() / 1e6:.0f} MB.",
            *(
                [
                    f"Waiting: with one worker process and steps that take {options.step_ms:g} ms (asleep), once its "
                    "shards are open."
                ]
                if options.step_ms
                else []
            ),
        ],
    )


def _dataset(
    index: Index, plan: Plan, url: str, memory_bytes: int, decoder: SampleDecoder | None = None
) -> StepDataset:
    rows = range(plan.batch_size)
    return StepDataset(index, plan, _cache(url, index), rows, _shape(index), 64, memory_bytes, decoder)


def _held(index: Index, plan: Plan, url: str, device: torch.device) -> DeviceBatches:
    held = DeviceSet.read(index, lambda: _cache(url, index), Ranks(0, 1, device, None), None)
    return DeviceBatches(held, plan, range(plan.batch_size), _shape(index), None)


def _shape(index: Index) -> BatchShape:
    return BatchShape(round(index.image_size / STORED_PER_CROPPED), 4, 100, 1, 128)


def _cache(url: str, index: Index) -> ShardCache:
    return ShardCache(url, index, Path(tempfile.gettempdir()) / "unused", 10**9)


def _encoded(index: Index, plan: Plan, url: str, steps: range) -> list[bytes]:
    """The JPEGs of these steps."""
    shards = OpenShards(index, _cache(url, index), keep=len(index.shards))
    places = [place for step in steps for place in plan.locate(step, range(plan.batch_size))]
    return [shards[shard].jpeg(sample) for shard, sample in places]


def _decode(decoder: SampleDecoder, encoded: list[bytes]) -> None:
    for each in encoded:
        decoder.pixels(each)


def _load(dataset: StepDataset | DeviceBatches, steps: range) -> None:
    for step in steps:
        _checked(dataset[step])


def _checked(batch: Any) -> Batch:
    if isinstance(batch, Exception):
        raise batch
    assert isinstance(batch, Batch)
    return batch


def _waiting(dataset: StepDataset, steps: range, step_s: float, device: torch.device) -> float:
    """Share of the time that a loop of steps waits for a batch of one worker process.

    Measured over the second half of twice as many steps: in the first the worker starts and opens its shards.
    """
    waited, begin = 0.0, 0.0
    loader = iter(make_loader(dataset, steps.start, steps.start + 2 * len(steps), 1, start_method(device)))
    for number in range(2 * len(steps)):
        asked = time.perf_counter()
        if number == len(steps):
            begin = asked
        _checked(next(loader))
        if number >= len(steps):
            waited += time.perf_counter() - asked
        time.sleep(step_s)
    return waited / (time.perf_counter() - begin)
