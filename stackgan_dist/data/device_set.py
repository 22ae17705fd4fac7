"""A whole data set in the memory of the device that trains on it.

At the start each rank decodes its share of the samples and sends it to all others. From then on a step costs the host a
few kilobytes of numbers (device_batches.py), and no process beside the rank.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.decoded import SampleDecoder
from stackgan_dist.data.index import Index
from stackgan_dist.data.placement import check_places
from stackgan_dist.data.shard import OpenShards
from stackgan_dist.data.shard_classes import ShardClasses
from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes
from stackgan_dist.errors import UserError
from stackgan_dist.machine import cores_of_this_rank
from stackgan_dist.models.config import Placement

_BLOCK_BYTES = 64 * 2**20
"""Of samples that are decoded in host memory before they go to the device."""
_SENT_BYTES = 256 * 2**20
"""At once, to the other ranks."""

_PLACES = ("box", "keypoints")
"""Of a KEY.json."""


def set_bytes(index: Index) -> int:
    """What the pixels and the embeddings of a set take."""
    return index.samples * (3 * index.image_size**2 + 2 * index.captions_per_image * index.text_dim)


class DeviceSet:
    """All samples of a set, numbered in the order of the shards.

    Args:
        index: of the set.
        device: where.
    """

    pixels: Tensor
    """(samples, side, side, 3), uint8: the stored pictures."""
    texts: Tensor
    """(samples, captions, dim), float16."""
    classes: list[ShardClasses]
    """Of each shard."""
    places: list[dict[str, Any]]
    """What each sample's KEY.json says about where the object is; empty where no model is told."""

    def __init__(self, index: Index, device: torch.device) -> None:
        side = index.image_size
        self.index, self.device = index, device
        self.pixels = torch.empty(index.samples, side, side, 3, dtype=torch.uint8, device=device)
        texts = (index.samples, index.captions_per_image, index.text_dim)
        self.texts = torch.empty(texts, dtype=torch.float16, device=device)
        self.classes, self.places = [], []

    @classmethod
    def read(
        cls, index: Index, open_cache: Callable[[], ShardCache], ranks: Ranks, placement: Placement | None
    ) -> DeviceSet:
        """The set, on every rank's device; every rank has to call it.

        Args:
            index: of the set.
            open_cache: a way to its shards, one for each thread.
            ranks: who takes part.
            placement: what the model is told about where the object is.

        Raises:
            UserError: on all ranks alike, where any of them cannot read its share.
        """
        made = cls(index, ranks.device)
        shares = [
            range(rank * index.samples // ranks.world_size, (rank + 1) * index.samples // ranks.world_size)
            for rank in range(ranks.world_size)
        ]
        found: dict[str, Any]
        try:
            found = {"samples": made._read_share(shares[ranks.rank], open_cache, placement is not None)}
        except UserError as error:
            found = {"error": str(error)}
        samples: list[tuple[str, dict[str, Any]]] = []
        own = json.dumps(found).encode()
        for rank in range(ranks.world_size):
            data = broadcast_bytes(own, ranks, source=rank)
            assert data is not None
            said = json.loads(data)
            if "error" in said:
                raise UserError(said["error"])
            samples += said["samples"]
        made._describe(samples, placement)
        if ranks.distributed:
            for rank, share in enumerate(shares):
                _send(made.pixels[share.start : share.stop], rank)
                _send(made.texts[share.start : share.stop], rank)
        return made

    def _read_share(
        self, share: range, open_cache: Callable[[], ShardCache], with_places: bool
    ) -> list[tuple[str, dict[str, Any]]]:
        """Decode these samples and put them in place; class of each, and what it says about places."""
        if not share:
            return []
        threads = min(cores_of_this_rank(), len(share))
        readers = [_Reader(self.index, open_cache(), with_places) for _ in range(threads)]
        block = max(threads, _BLOCK_BYTES // (self.pixels[0].nbytes + self.texts[0].nbytes))
        pinned = self.device.type == "cuda"
        pixels, texts = (
            torch.empty((min(block, len(share)), *like.shape[1:]), dtype=like.dtype, pin_memory=pinned)
            for like in (self.pixels, self.texts)
        )
        found: list[tuple[str, dict[str, Any]]] = []
        with ThreadPoolExecutor(threads) as pool:
            for begin in range(share.start, share.stop, block):
                numbers = range(begin, min(begin + block, share.stop))
                cuts = [part * len(numbers) // threads for part in range(threads + 1)]
                into = (pixels.numpy(), texts.numpy())
                work = [
                    pool.submit(reader.read, numbers[low:high], *(array[low:high] for array in into))
                    for reader, low, high in zip(readers, cuts, cuts[1:], strict=False)
                ]
                for part in work:
                    found += part.result()
                self.pixels[begin : numbers.stop] = pixels[: len(numbers)]
                self.texts[begin : numbers.stop] = texts[: len(numbers)]
        for reader in readers:
            reader.close()
        return found

    def _describe(self, samples: Sequence[tuple[str, dict[str, Any]]], placement: Placement | None) -> None:
        left = iter(samples)
        for shard in self.index.shards:
            of_shard = list(islice(left, shard.samples))
            self.classes.append(ShardClasses(shard.name, [name for name, _ in of_shard]))
            if placement is not None:
                self.places += [place for _, place in of_shard]
                check_places(self.places[-shard.samples :], placement, shard.name)


class _Reader:
    """Reads samples by their numbers in the whole set, in one thread."""

    def __init__(self, index: Index, cache: ShardCache, with_places: bool) -> None:
        self._shards = OpenShards(index, cache, keep=1)
        self._decoder = SampleDecoder(index)
        self._index, self._with_places = index, with_places

    def read(
        self, numbers: range, pixels: np.ndarray[Any, Any], texts: np.ndarray[Any, Any]
    ) -> list[tuple[str, dict[str, Any]]]:
        """Of samples by `numbers` the pictures and embeddings into the arrays; their classes and places."""
        found: list[tuple[str, dict[str, Any]]] = []
        for n, number in enumerate(numbers):
            shard, sample = self._index.locate(number)
            reader = self._shards[shard]
            pixels[n] = self._decoder.picture(reader.jpeg(sample), reader, sample)
            self._decoder.embeddings(reader, sample, texts[n])
            meta = reader.meta(sample) if self._with_places else {}
            place: dict[str, Any] = {name: meta[name] for name in _PLACES if name in meta}
            found.append((reader.classes.names[sample], place))
        return found

    def close(self) -> None:
        """Close the shards."""
        self._shards.close()


def _send(part: Tensor, source: int) -> None:
    """From rank `source` to all others, as bytes: gloo knows fewer types than torch."""
    content = part.view(torch.uint8).view(-1)
    for begin in range(0, len(content), _SENT_BYTES):
        dist.broadcast(content[begin : begin + _SENT_BYTES], src=source)
