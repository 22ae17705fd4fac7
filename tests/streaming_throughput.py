"""How fast pictures arrive: `python tests/streaming_throughput.py`.

One real S3 server on loopback, one loader process, and the same work for everybody: pictures decoded, 64-pixel crops
at random, half of them mirrored, the mean of four random embeddings, batches of 64 tensors; this project's batches also
hold wrong texts and noise. The pictures of a packed set (default: painted birds, packed here) are written again and
again under new keys until there are enough of them. Compared are this project's loader on local files and on the
server, with an empty cache at first, and plain `wds.WebDataset` over the same objects, which it reads through curl;
each for two epochs, in turns, in one run. As in a run of default settings this project keeps what it has decoded, if
that fits (--data.memory-gb 1); "no memory" is --data.memory-gb 0. CPU time is that of all processes but the server: it
is what an epoch takes of a core, also where other work runs beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import hashlib
import io
import os
import random
import resource
import shutil
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
import torch
import webdataset as wds
from stores.server import BUCKET, s3_server, variables
from torch.utils.data import DataLoader

from stackgan_dist.config import DataConfig
from stackgan_dist.data.batch import BatchShape
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import INDEX_NAME, Shard, load_index
from stackgan_dist.data.loader import StepDataset, make_loader
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import load_recipe
from stackgan_dist.pack.shard_writer import add_members
from stackgan_dist.storage.files import open_filesystem

BATCH = 64
SHAPE = BatchShape(image_size=64, captions_per_text=4, noise_dim=100, stages=1, condition_dim=128)


def ours(url: str, cache: Path, memory_gb: float = DataConfig.memory_gb) -> Iterator[Callable[[], int]]:
    """Two epochs, each a function that returns the number of its pictures."""
    data = open_packed(DataConfig(url=url, cache=str(cache)), SHAPE.image_size)
    plan = Plan([shard.samples for shard in data.index.shards], 0, BATCH)
    memory = int(memory_gb * 1e9)
    dataset = StepDataset(data.index, plan, data.cache(), range(BATCH), SHAPE, lookahead=64, memory_bytes=memory)
    for epoch in range(2):

        def run(first: int = epoch * plan.steps_per_epoch) -> int:
            pictures = 0
            for batch in make_loader(dataset, first, first + plan.steps_per_epoch, 1, pin_memory=False):
                if isinstance(batch, UserError):
                    raise batch
                pictures += len(batch.images)
            return pictures

        yield run


def _decode(sample: tuple[bytes, bytes]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    picture = simplejpeg.decode_jpeg(sample[0], colorspace="RGB")
    left, top = random.randint(0, 12), random.randint(0, 12)
    seen = picture[top : top + 64, left : left + 64]
    seen = seen[:, ::-1] if random.random() < 0.5 else seen
    embeddings = np.load(io.BytesIO(sample[1]))
    text = embeddings[random.sample(range(len(embeddings)), 4)].astype(np.float32).mean(axis=0)
    return seen.transpose(2, 0, 1), text


def theirs(urls: list[str]) -> Iterator[Callable[[], int]]:
    """The same with webdataset."""
    for _ in range(2):

        def run() -> int:
            stream = wds.WebDataset(urls, shardshuffle=False, empty_check=False).to_tuple("jpg", "emb.npy").map(_decode)
            loader = DataLoader(stream.batched(BATCH), batch_size=None, num_workers=1, prefetch_factor=4)
            return sum(len(images) for images, _ in loader)

        yield run


def multiply(packed: str, out: Path, pictures: int) -> None:
    """Write the training set of `packed` to `out` as often as it takes, no two tars of the same bytes."""
    folder = out / "train" / "76"
    folder.mkdir(parents=True)
    index = load_index(f"{packed}/train/76")
    shards: list[Shard] = []
    while sum(shard.samples for shard in shards) < pictures:
        number = len(shards)
        old = index.shards[number % len(index.shards)]
        name = f"shard-{number:06d}.tar"
        with (
            Path(packed, "train", "76", old.name).open("rb") as file,
            tarfile.open(folder / name, "w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            reader = ShardReader(file, old.name, old.samples)
            for sample, key in enumerate(reader.keys):
                add_members(tar, f"{key}-{number}", reader.members(sample))
        data = (folder / name).read_bytes()
        shards.append(Shard(name, len(data), hashlib.sha256(data).hexdigest(), old.samples))
    total = sum(shard.samples for shard in shards)
    index = dataclasses.replace(index, shards=tuple(shards), samples=total)
    (folder / INDEX_NAME).write_bytes(index.to_bytes())


class Speed(NamedTuple):
    """Of one epoch."""

    per_s: float
    """Pictures per second."""
    cpu_us: float
    """Microseconds of CPU time for each picture."""


def _cpu_s() -> float:
    """CPU time of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measure(folder: Path, served: str, urls: list[str], repeats: int) -> dict[str, list[list[Speed]]]:
    """Way -> epoch -> one figure for each repeat. The ways take turns."""
    pictures = load_index(f"{folder}/set/train/76").samples
    ways: dict[str, Callable[[int], Iterator[Callable[[], int]]]] = {
        "local files": lambda _: ours(str(folder / "set"), folder / "unused"),
        "s3://, no memory": lambda repeat: ours(served, folder / f"other-cache-{repeat}", 0.0),
        "s3://, this project": lambda repeat: ours(served, folder / f"cache-{repeat}"),
        "http://, wds.WebDataset": lambda _: theirs(urls),
    }
    speeds: dict[str, list[list[Speed]]] = {name: [[], []] for name in ways}
    for repeat in range(repeats):
        for name, epochs in ways.items():
            for epoch, run in enumerate(epochs(repeat)):
                begin, begin_cpu = time.perf_counter(), _cpu_s()
                found = run()
                gc.collect()  # its workers end, and are counted
                speed = Speed(found / (time.perf_counter() - begin), (_cpu_s() - begin_cpu) / found * 1e6)
                speeds[name][epoch].append(speed)
                if found < pictures - BATCH:
                    raise RuntimeError(f"{name}: {found} of {pictures} pictures came; the figures would be wrong")
        for cache in folder.glob(f"*cache-{repeat}"):
            shutil.rmtree(cache)
    return speeds


def show(speeds: dict[str, list[list[Speed]]], bytes_per_picture: float) -> None:
    """Medians, with the least and the most, and what this project's are against webdataset's."""
    print(f"{'':26}{'epoch':>6}{'img/s':>9}{'MB/s':>7}{'CPU us/img':>12}   (least to most img/s)")
    for name, epochs in speeds.items():
        for number, found in enumerate(epochs, 1):
            rates = [speed.per_s for speed in found]
            rate, cpu_us = statistics.median(rates), statistics.median(speed.cpu_us for speed in found)
            print(
                f"{name:26}{number:>6}{rate:>9,.0f}{rate * bytes_per_picture / 1e6:>7.1f}{cpu_us:>12,.0f}   "
                f"({min(rates):,.0f} to {max(rates):,.0f})"
            )
    *_, streamed, plain = speeds.values()
    for number, pair in enumerate(zip(streamed, plain, strict=True), 1):
        faster = [ours_.per_s / theirs_.per_s for ours_, theirs_ in zip(*pair, strict=True)]
        cheaper = [theirs_.cpu_us / ours_.cpu_us for ours_, theirs_ in zip(*pair, strict=True)]
        print(
            f"epoch {number}, s3:// here against wds.WebDataset: {statistics.median(faster):.2f} times as fast "
            f"({min(faster):.2f} to {max(faster):.2f}), {statistics.median(cheaper):.2f} times fewer CPU seconds"
        )


def main() -> None:
    """Pack, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=16384, help="at least so many")
    parser.add_argument("--set", help="folder of a packed set with pictures of 76 pixels")
    parser.add_argument("--repeats", type=int, default=3, help="of every way, in turns")
    options = parser.parse_args()
    if not shutil.which("curl"):
        parser.error("webdataset reads http:// through curl, which is not installed")
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="throughput-"))
    try:
        packed = options.set or str(folder / "packed")
        if not options.set:
            recipe = dataclasses.replace(load_recipe("painted"), sizes=(76,), splits=("train",))
            pack(recipe, root=None, out=packed, workers=1, limit=512)
        multiply(packed, folder / "set", options.pictures)
        with s3_server(folder / "server") as server:
            os.environ.update(variables(server.endpoint))
            fs, path = open_filesystem(f"s3://{BUCKET}/set")
            fs.put(str(folder / "set" / "train"), f"{path}/train", recursive=True)
            index = load_index(f"{folder}/set/train/76")
            size = sum(shard.bytes for shard in index.shards)
            urls = [f"{server.endpoint}/{path}/train/76/{shard.name}" for shard in index.shards]
            print(f"{index.samples:,} pictures in {len(index.shards)} shards, {size / 1e6:.1f} MB", flush=True)
            show(measure(folder, f"s3://{path}", urls, options.repeats), size / index.samples)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
