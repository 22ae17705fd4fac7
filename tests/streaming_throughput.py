"""How fast pictures arrive: `python tests/streaming_throughput.py [--pictures N] [--set FOLDER]`.

One real S3 server on loopback, one loader process, and the same work for everybody: 64-pixel crops decoded, the mean
of four embeddings, batches of 64. The pictures of a packed set (default: painted birds, packed here) are written
again and again under new keys until there are enough of them. Compared are this project's loader on local files and
on the server, and plain `wds.WebDataset` over the same objects, which it reads through curl; each for two epochs, in
one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch
import webdataset as wds
from stores.server import BUCKET, s3_server, variables
from torch.utils.data import DataLoader

from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import INDEX_NAME, Shard, load_index
from stackgan_dist.data.loader import BatchShape, StepDataset, make_loader
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.data.storage import open_filesystem
from stackgan_dist.errors import UserError
from stackgan_dist.packing.data_set import pack
from stackgan_dist.packing.recipe import load_recipe
from stackgan_dist.packing.shard_writer import add_members

BATCH = 64
SHAPE = BatchShape(image_size=64, captions_per_text=4, noise_dim=100, stages=1, condition_dim=128)


def ours(url: str, cache: Path) -> Iterator[Callable[[], int]]:
    """Two epochs, each a function that returns the number of its pictures."""
    data = open_packed(DataConfig(url=url, cache=str(cache)), SHAPE.image_size)
    plan = Plan([shard.samples for shard in data.index.shards], 0, BATCH)
    for epoch in range(2):

        def run(first: int = epoch * plan.steps_per_epoch) -> int:
            dataset = StepDataset(data.index, plan, data.cache(), range(BATCH), SHAPE, lookahead=64)
            pictures = 0
            for batch in make_loader(dataset, first, first + plan.steps_per_epoch, 1, pin_memory=False):
                if isinstance(batch, UserError):
                    raise batch
                pictures += len(batch.images)
            return pictures

        yield run


def _decode(sample: tuple[bytes, bytes]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    import io

    picture = simplejpeg.decode_jpeg(sample[0], colorspace="RGB")
    text = np.load(io.BytesIO(sample[1]))[:4].astype(np.float32).mean(axis=0)
    return picture[6:70, 6:70].transpose(2, 0, 1), text


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


def main() -> None:
    """Pack, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=16384, help="at least so many")
    parser.add_argument("--set", help="folder of a packed set with pictures of 76 pixels")
    options = parser.parse_args()
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
            shards = open_packed(DataConfig(url=str(folder / "set")), SHAPE.image_size).index.shards
            size = sum(shard.bytes for shard in shards)
            urls = [f"{server.endpoint}/{path}/train/76/{shard.name}" for shard in shards]
            print(f"{sum(shard.samples for shard in shards):,} pictures in {len(shards)} shards, {size / 1e6:.1f} MB")
            print(f"{'':28}{'epoch':>6}{'img/s':>9}{'MB/s':>8}")
            ways = {
                "local files": ours(str(folder / "set"), folder / "unused"),
                "s3://, this project": ours(f"s3://{path}", folder / "cache"),
                "the same, wds.WebDataset": theirs(urls),
            }
            speeds: dict[str, list[float]] = {}
            for name, epochs in ways.items():
                for number, run in enumerate(epochs, 1):
                    begin = time.perf_counter()
                    speed = run() / (time.perf_counter() - begin)
                    speeds.setdefault(name, []).append(speed)
                    per_picture = size / sum(shard.samples for shard in shards)
                    print(f"{name:28}{number:>6}{speed:>9,.0f}{speed * per_picture / 1e6:>8.1f}", flush=True)
            _, streamed, plain = speeds.values()
            ratios = ", ".join(
                f"epoch {n}: {a / b:.2f}" for n, (a, b) in enumerate(zip(streamed, plain, strict=True), 1)
            )
            print(f"this project from s3:// against wds.WebDataset: {ratios}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
