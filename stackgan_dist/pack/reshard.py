"""The same samples in shards of another size: members are copied byte for byte, in their order."""

from __future__ import annotations

import dataclasses
import re
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import INDEX_NAME, Index, Shard, load_index, packed_folders
from stackgan_dist.data.shard import OpenShards
from stackgan_dist.errors import UserError
from stackgan_dist.pack.listing import cut, shards_of
from stackgan_dist.pack.pool import AbandonedError, OnPicture, run_tasks
from stackgan_dist.pack.shard_writer import add_members, publish_tar, temporary_tar
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text.files import find_file, has_file, keep_file

_SHARDS_OPEN = 4
_CACHE_BYTES = 20 * 10**9


@dataclass(frozen=True)
class _Task:
    source: Folder
    index: Index
    samples: range
    """Numbers in the order of the old shards."""
    out: Folder
    name: str
    cache: str


def reshard(
    url: str, out: str, samples_per_shard: int | None, shard_mb: float | None, shards: int | None, workers: int
) -> None:
    """Write the data sets at and below `url` to the same places below `out`, in shards of another size.

    Exactly one of the three says which size: pictures in a shard, megabytes, or the number of shards.

    Raises UserError when `url` is damaged, or something is at `out` already.
    """
    if sum(value is not None for value in (samples_per_shard, shard_mb, shards)) != 1:
        raise UserError("give exactly one of --samples-per-shard, --shard-mb and --shards")
    source = Folder.at(url)
    folders = packed_folders(source)
    targets = {below: Folder.at(out) / below if below else Folder.at(out) for below in folders}
    for target in targets.values():
        if any(name == INDEX_NAME or re.fullmatch(r"shard-\d+\.tar", name) for name in target.names()):
            raise UserError(f"{target} holds shards already; choose another --out, or remove them")
    with tempfile.TemporaryDirectory(prefix="reshard-") as cache:  # for remote shards; local ones are read in place
        for below, folder in folders.items():
            index = load_index(folder)
            total = sum(shard.bytes for shard in index.shards)
            if shards is not None:
                per_shard, count = -(-index.samples // shards), shards
            else:
                per_shard = samples_per_shard or max(2, int((shard_mb or 0) * 1e6 / (total / index.samples)))
                count = shards_of(index.samples, per_shard)
            recipe = {**index.recipe, "samples_per_shard": per_shard}
            _reshard_one(folder, dataclasses.replace(index, recipe=recipe), targets[below], count, workers, cache)
            if has_file(index.text_encoder):
                # What is given may be a data set, a split or a size of one.
                beside = (source, source.parent, source.parent.parent)
                keep_file(index.text_encoder, find_file(index.text_encoder, beside), out)


def _reshard_one(source: Folder, index: Index, out: Folder, shards: int, workers: int, cache: str) -> None:
    if shards > (most := index.samples // 2):
        raise UserError(
            f"{source} has {index.samples} pictures, too few for {shards} shards, each of which must hold two classes; "
            f"ask for at most {most}, or for more pictures in a shard"
        )
    tasks = [
        _Task(source, index, samples, out, f"shard-{number:06d}.tar", cache)
        for number, samples in enumerate(cut(index.samples, shards))
    ]
    written: dict[int, Shard] = {}
    for number, shard in run_tasks(write_shard, tasks, index.samples, workers, f"reshard {source}"):
        written[number] = shard
    new = dataclasses.replace(index, shards=tuple(written[number] for number in range(len(tasks))))
    out.write(INDEX_NAME, new.to_bytes())
    print(
        f"resharded {source}: {len(index.shards)} shards -> {len(tasks)}, {index.samples} pictures -> {out}", flush=True
    )


def write_shard(task: _Task, on_picture: OnPicture = lambda: True) -> Shard:
    """Write one new shard out of pieces of old ones."""
    readers = OpenShards(task.index, ShardCache(task.source, task.index, Path(task.cache), _CACHE_BYTES), _SHARDS_OPEN)
    classes = set()
    with temporary_tar(task.out, task.name) as part:
        with tarfile.open(part, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number, sample in _places(task.index.shards, task.samples):
                reader = readers[number]
                classes.add(reader.meta(sample).get("class", reader.keys[sample]))
                add_members(tar, reader.keys[sample], reader.members(sample))
                if not on_picture():
                    raise AbandonedError
        if len(classes) < 2:
            raise UserError(
                f"{task.name} would hold one class only; matching-aware training takes wrong texts from another class "
                "of the shard. Ask for larger shards"
            )
        return publish_tar(part, task.out, task.name, len(task.samples))


def _places(shards: Sequence[Shard], samples: range) -> list[tuple[int, int]]:
    """(shard, sample in it) of each of `samples`."""
    places, begin = [], 0
    for number, shard in enumerate(shards):
        inside = range(max(samples.start, begin), min(samples.stop, begin + shard.samples))
        places += [(number, sample - begin) for sample in inside]
        begin += shard.samples
    return places
