"""From a recipe to shards and their index: what goes into which shard, who packs it, and what counts as finished.

The order of the pictures is a hashed permutation, cut into shards of equal size; both depend on the recipe and the
source alone. `index.json` is written last.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
import reprlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stackgan_dist.data.index import INDEX_NAME, Index, parse_index
from stackgan_dist.data.randomness import permutation
from stackgan_dist.data.sources import Record, Source, open_source
from stackgan_dist.data.storage import join, list_names, open_filesystem, read_bytes, remove, write_bytes
from stackgan_dist.errors import UserError
from stackgan_dist.packing.pool import run_tasks
from stackgan_dist.packing.recipe import Recipe
from stackgan_dist.packing.shard_writer import TEMPORARY_SUFFIX, Packed, Task

REJECTED_NAME = "rejected.jsonl"
_KEY = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class _Job:
    """One split, at the sizes that are not there yet."""

    split: str
    records: tuple[Record, ...]
    made_by: dict[str, Any]
    sizes: tuple[int, ...]


def pack(
    recipe: Recipe,
    *,
    root: str | None,
    out: str,
    workers: int,
    limit: int | None = None,
    max_rejects: float = 0.01,
    overwrite: bool = False,
) -> None:
    """Pack the data set of `recipe` into OUT/{split}/{size}/.

    Args:
        recipe: what to pack.
        root: the folder that the source reads.
        out: URL of the folder to write to.
        workers: number of packing processes; the shards are the same bytes for any.
        limit: at most so many pictures of each split.
        max_rejects: share of a split's pictures that may be undecodable.
        overwrite: pack again what is there.

    Raises:
        UserError: the source is not as expected, something else is at `out`, too many pictures cannot be decoded,
            or a shard would hold one class only. What is not finished has no index.
    """
    source = open_source(recipe.source, root, recipe.options)
    jobs = [_plan(recipe, split, source, out, limit, overwrite) for split in recipe.splits]
    for job in jobs:
        if job.sizes:
            _pack_split(recipe, job, source, join(out, job.split), workers, max_rejects)


def _plan(recipe: Recipe, split: str, source: Source, out: str, limit: int | None, overwrite: bool) -> _Job:
    listed = source.records(split)
    _check(listed, split)
    order = permutation(len(listed), recipe.seed)[:limit]
    records = tuple(listed[i] for i in order)
    made_by = {
        "source": recipe.source,
        "options": dict(recipe.options),
        "seed": recipe.seed,
        "samples_per_shard": recipe.samples_per_shard,
        "records": len(records),
        "records_sha256": _digest(records),
    }
    for shard in _cut(records, recipe.samples_per_shard):
        _check_classes({record.class_name for record in shard}, records, split, recipe.samples_per_shard)
    sizes = []
    for size in recipe.sizes:
        folder = join(out, split, str(size))
        if not overwrite and _is_packed(folder, recipe, made_by):
            print(f"{folder} is already packed ({len(records)} pictures); --overwrite packs it again", flush=True)
        else:
            sizes.append(size)
    return _Job(split, records, made_by, tuple(sizes))


def _check(records: Sequence[Record], split: str) -> None:
    seen: set[str] = set()
    for record in records:
        if not _KEY.fullmatch(record.key) or record.key in seen:
            fault = "occurs twice" if record.key in seen else "has other characters than letters, digits, - and _"
            raise UserError(f"{split}: the key {record.key!r} of {record.source_id or 'a record'} {fault}")
        seen.add(record.key)
    counts = {len(record.captions): record for record in records}
    if len(counts) > 1 or 0 in counts:
        found = "; ".join(f"{record.key} has {count}" for count, record in sorted(counts.items())[:3])
        raise UserError(f"{split}: every picture needs the same number of captions, at least one, but {found}")


def _check_classes(classes: set[str] | frozenset[str], records: Sequence[Record], split: str, per_shard: int) -> None:
    if len(classes) >= 2:
        return
    needed = "matching-aware training takes the wrong texts of a picture from another class of its shard"
    if len({record.class_name for record in records}) < 2:
        raise UserError(
            f"the {len(records)} pictures of the split {split!r} are of one class; {needed}. "
            "Add classes (or raise --limit)"
        )
    raise UserError(
        f"a shard of {split!r} would hold one class only; {needed}. Raise --samples-per-shard ({per_shard})"
    )


def _digest(records: Sequence[Record]) -> str:
    """sha256 of all that the source says about the pictures, so that a changed source is noticed."""
    digest = hashlib.sha256()
    for record in sorted(records, key=lambda record: record.key):
        digest.update(json.dumps(dataclasses.asdict(record), sort_keys=True).encode())
    return digest.hexdigest()


def _cut(records: Sequence[Record], samples_per_shard: int) -> list[tuple[Record, ...]]:
    """`records` in as few shards as possible, equal in size up to one picture."""
    count = -(-len(records) // samples_per_shard)
    bounds = [number * len(records) // count for number in range(count + 1)]
    return [tuple(records[begin:end]) for begin, end in itertools.pairwise(bounds)]


def _is_packed(folder: str, recipe: Recipe, made_by: dict[str, Any]) -> bool:
    where = join(folder, INDEX_NAME)
    try:
        data = read_bytes(where)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except Exception as error:  # every store has its own family of errors
        raise UserError(f"cannot read {where}: {type(error).__name__}: {error}; check --out") from error
    try:
        index = parse_index(data, where)
    except UserError as error:
        raise UserError(f"{error} (--overwrite does so)") from error
    found = {"name": index.name, "text_encoder": index.text_encoder, **index.recipe}
    wanted = {"name": recipe.name, "text_encoder": recipe.text_encoder, **made_by}
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        differences = "; ".join(
            f"{key}: {reprlib.repr(found.get(key))} there, {reprlib.repr(wanted.get(key))} asked for"
            for key in differing
        )
        raise UserError(
            f"{folder} holds another data set ({differences}). Choose another --out, or replace it with --overwrite"
        )
    fs, path = open_filesystem(folder)
    there = {entry["name"].rsplit("/", 1)[-1]: entry["size"] for entry in fs.ls(path, detail=True, refresh=True)}
    return all(there.get(shard.name) == shard.bytes for shard in index.shards)


def _pack_split(recipe: Recipe, job: _Job, source: Source, url: str, workers: int, max_rejects: float) -> None:
    folders = tuple((size, join(url, str(size))) for size in job.sizes)
    for _, folder in folders:
        _clear(folder)
    tasks = [
        Task(source, records, recipe.text_encoder, folders, f"shard-{number:06d}.tar")
        for number, records in enumerate(_cut(job.records, recipe.samples_per_shard))
    ]
    rejected: list[dict[str, str]] = []
    packed: dict[int, Packed] = {}
    title = f"{recipe.name} {job.split}"
    started = time.monotonic()
    try:
        for number, result in run_tasks(tasks, workers, title):
            packed[number] = result
            rejected += result.rejected
            if len(rejected) > max_rejects * len(job.records):
                raise UserError(_too_many(rejected, len(job.records), max_rejects, url))
            if result.shards:
                _check_classes(result.classes, job.records, job.split, recipe.samples_per_shard)
    finally:
        _write_rejected(join(url, REJECTED_NAME), rejected)
    results = [packed[number] for number in sorted(packed)]
    for size, folder in folders:
        index = _index(recipe, job, size, results)
        write_bytes(join(folder, INDEX_NAME), index.to_bytes())
    seconds = time.monotonic() - started
    count = len(job.records) - len(rejected)
    print(
        f"packed {title}: {count} pictures, {len(tasks)} shards at {' and '.join(map(str, job.sizes))} px, "
        f"{len(rejected)} rejected, {seconds:.0f} s, {count / seconds:.0f} img/s -> {url}",
        flush=True,
    )


def _index(recipe: Recipe, job: _Job, size: int, results: Sequence[Packed]) -> Index:
    shards = tuple(result.shards[size] for result in results if result.shards)
    return Index(
        name=recipe.name,
        split=job.split,
        image_size=size,
        text_encoder=recipe.text_encoder,
        text_dim=results[0].text_dim,
        captions_per_image=len(job.records[0].captions),
        classes=tuple(sorted(frozenset().union(*(result.classes for result in results)))),
        samples=sum(shard.samples for shard in shards),
        shards=shards,
        recipe=job.made_by,
    )


def _clear(folder: str) -> None:
    """Remove what an earlier pack left: the index first, for without it nothing there counts."""
    names = list_names(folder)
    leftovers = [name for name in names if re.fullmatch(r"shard-\d{6}\.tar", name) or name.endswith(TEMPORARY_SUFFIX)]
    for name in [INDEX_NAME, *leftovers]:
        if name in names:
            remove(join(folder, name))


def _write_rejected(url: str, rejected: Sequence[dict[str, str]]) -> None:
    if rejected:
        lines = sorted(json.dumps(entry) for entry in rejected)
        write_bytes(url, ("\n".join(lines) + "\n").encode())
    else:
        remove(url)


def _too_many(rejected: Sequence[dict[str, str]], total: int, max_rejects: float, url: str) -> str:
    examples = "".join(f"\n  {entry['id'] or entry['key']}: {entry['reason']}" for entry in rejected[:5])
    return (
        f"{len(rejected)} of {total} pictures cannot be decoded so far, more than --max-rejects {max_rejects:g} "
        f"allows; no index was written. All of them: {join(url, REJECTED_NAME)}. The first:{examples}\n"
        "Mend or remove them, or raise --max-rejects"
    )
