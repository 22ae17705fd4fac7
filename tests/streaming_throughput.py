"""How fast pictures arrive: `python tests/streaming_throughput.py [--pictures N]`.

One real S3 server on loopback, one loader process, and the same work for everybody: 64-pixel crops decoded, the mean
of four embeddings, batches of 64. Compared are this project's loader on local files and on the server, and plain
`wds.WebDataset` over the same objects, which it reads through curl; each for two epochs, in one run.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
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
from stackgan_dist.data.loader import BatchShape, StepDataset, make_loader
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.storage import open_filesystem
from stackgan_dist.errors import UserError
from stackgan_dist.packing.data_set import pack
from stackgan_dist.packing.recipe import load_recipe

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


def main() -> None:
    """Pack, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8192)
    parser.add_argument("--samples-per-shard", type=int, default=512)
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="throughput-"))
    try:
        recipe = dataclasses.replace(load_recipe("painted"), sizes=(76,), samples_per_shard=options.samples_per_shard)
        pack(recipe, root=None, out=str(folder / "set"), workers=1, limit=options.pictures)
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
