"""From a recipe to shards and their index: what goes into which shard, who packs it, and what counts as finished.

The order of the pictures is a hashed permutation, cut into shards of equal size; both depend on the recipe and the
source alone. Hence any number of processes, parts and restarts write the same bytes. `index.json` is written last.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stackgan_dist.data.index import INDEX_NAME, Index, parse_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.balance import BALANCE_NAME, REJECTED_NAME, account_of, balance_of, read_split
from stackgan_dist.pack.listing import Listing, cut, list_split, samples_per_shard
from stackgan_dist.pack.pool import run_tasks
from stackgan_dist.pack.receipts import Receipt, read_receipts, remove_receipts, withdraw_receipts, write_receipt
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.shard_writer import TEMPORARY_SUFFIX, Packed, Task, pack_shard
from stackgan_dist.pack.sources import KeepingSource, Record, Source, open_source
from stackgan_dist.pack.sources.account import printable
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text import PUBLISHED, encoder_name
from stackgan_dist.text.files import has_file, keep_file, read_file
from stackgan_dist.text.folders import same_encoder

LISTING_NAME = "listing"
"""Folder beside the splits in which a KeepingSource keeps its listing until all of them are complete."""
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = 100  # the whole name of a trained text encoder, but not all of a long option


class Part(NamedTuple):
    """Which shards to pack: those whose number is `number` modulo `parts`, counted from 0."""

    number: int
    parts: int


WHOLE = Part(0, 1)


@dataclass(frozen=True)
class _Job:
    """One split, at the sizes that are not there yet."""

    recipe: Recipe
    encoder: str
    """What the index calls the recipe's encoder."""
    split: str
    source: Source
    listing: Listing
    made_by: dict[str, Any]
    folders: dict[int, Folder]
    """Side of the squares -> its folder."""
    top: Folder
    """The folder above them."""

    @property
    def identity(self) -> str:
        """Of what is being packed, whatever its size in pixels."""
        what = {"name": self.recipe.name, "text_encoder": self.encoder, **self.made_by}
        return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()

    @property
    def shards(self) -> dict[str, range]:
        """Name of each shard -> its pictures."""
        ranges = cut(len(self.listing.records), self.made_by["samples_per_shard"])
        return {f"shard-{number:06d}.tar": pictures for number, pictures in enumerate(ranges)}

    @property
    def title(self) -> str:
        """What to call it on the screen."""
        return f"{self.recipe.name} {self.split}"


def pack(
    recipe: Recipe,
    *,
    root: str | None,
    out: str,
    workers: int,
    limit: int | None = None,
    max_rejects: float = 0.01,
    overwrite: bool = False,
    part: Part = WHOLE,
) -> None:
    """Pack the data set of `recipe` into OUT/{split}/{size}/. What an earlier call has finished is not done again.

    Args:
        recipe: what to pack.
        root: the folder that the source reads.
        out: URL of the folder to write to.
        workers: number of packing processes; the shards are the same bytes for any.
        limit: at most so many pictures of each split.
        max_rejects: share of a split's pictures that may be unusable.
        overwrite: pack again what is there.
        part: the shards to pack; whoever finishes last writes the index.

    Raises:
        UserError: the source is not as expected, something else is at `out`, too many pictures cannot be used, or a
            shard would hold one class only. What is not finished has no index.
    """
    encoder = encoder_name(recipe.text_encoder)
    source = open_source(recipe.source, root, recipe.options)
    folder = Folder.at(out)
    if isinstance(source, KeepingSource):
        source.keep_listing((folder / LISTING_NAME).url)
    listings = {split: list_split(recipe, split, source, limit) for split in recipe.splits}
    account = account_of(source, listings)
    jobs = [
        _plan(recipe, encoder, split, source, listing, folder / split, max_rejects, overwrite, part)
        for split, listing in _not_empty(recipe.name, listings).items()
    ]
    if has_file(encoder):  # new sentences need it, wherever the set is taken
        keep_file(encoder, read_file(recipe.text_encoder)[0], folder)
    for job in jobs:
        if job.folders:
            _pack_split(job, workers, max_rejects, part)
    if not all(INDEX_NAME in size.names() for job in jobs for size in job.folders.values()):
        return  # the part that finishes the set has its balance
    if isinstance(source, KeepingSource):
        folder.remove(LISTING_NAME)
    balance = balance_of(
        recipe.name, account, [read_split(job.split, job.listing, job.top, recipe.sizes[0]) for job in jobs]
    )
    folder.write(BALANCE_NAME, balance.to_bytes())
    print(balance, flush=True)
    balance.check()


def _not_empty(name: str, listings: Mapping[str, Listing]) -> dict[str, Listing]:
    """The splits that there are pictures of; if there are any for training, the others may be empty."""
    there = {split: listing for split, listing in listings.items() if listing.records or listing.rejected}
    if not there.get("train"):
        return dict(listings)  # the first empty one is an error
    for split in listings:
        if split not in there:
            print(f"{name} has no pictures of the split {split}; it is packed without", flush=True)
    return there


def _plan(
    recipe: Recipe,
    encoder: str,
    split: str,
    source: Source,
    listing: Listing,
    top: Folder,
    max_rejects: float,
    overwrite: bool,
    part: Part,
) -> _Job:
    if _are_too_many(listing.rejected, listing, max_rejects):
        _write_rejected(top, listing.rejected)
        raise UserError(_too_many(listing.rejected, listing, max_rejects, top))
    per_shard = samples_per_shard(recipe, listing, source)
    made_by = {
        "source": recipe.source,
        "options": dict(recipe.options),
        "seed": recipe.seed,
        "samples_per_shard": per_shard,
        "records": len(listing.records),
        "records_sha256": listing.digest,
    }
    for pictures in cut(len(listing.records), per_shard):
        shard = listing.records[pictures.start : pictures.stop]
        _check_classes(len({_class_of(record) for record in shard}), listing.records, split, per_shard)
    folders = {}
    for size in recipe.sizes:
        folder = top / str(size)
        state = _state(folder, recipe.name, encoder, made_by, overwrite)
        if state == "packed":
            print(
                f"{folder} is already packed ({len(listing.records)} pictures); --overwrite packs it again", flush=True
            )
            continue
        if state != "open":
            if part != WHOLE:
                raise UserError(
                    f"{folder} is to be packed again ({state}), which parts that start at different times cannot agree "
                    "on; remove the folder first, or pack without --part"
                )
            _clear(folder)
        folders[size] = folder
    return _Job(recipe, encoder, split, source, listing, made_by, folders, top)


def _class_of(record: Record) -> str:
    return record.class_name or record.key


def _check_classes(classes: int, records: Sequence[Record], split: str, per_shard: int) -> None:
    if classes >= 2:
        return
    needed = "matching-aware training takes the wrong texts of a picture from another class of its shard"
    if len({_class_of(record) for record in records}) < 2:
        raise UserError(
            f"the {len(records)} pictures of the split {split!r} are of one class; {needed}. "
            "Add classes (or raise --limit)"
        )
    raise UserError(
        f"a shard of {split!r} would hold one class only; {needed}. Raise --samples-per-shard ({per_shard})"
    )


def _state(folder: Folder, name: str, encoder: str, made_by: dict[str, Any], overwrite: bool) -> str:
    """One of "packed", "open" (there is no index), and the reason why the folder is to be cleared first."""
    where = folder.url_of(INDEX_NAME)
    try:
        data = folder.read(INDEX_NAME)
    except (FileNotFoundError, NotADirectoryError):
        return "--overwrite" if overwrite else "open"
    except OSError as error:
        raise UserError(f"cannot read {where}: {error.strerror or error}; check --out") from error
    if overwrite:
        return "--overwrite"
    try:
        index = parse_index(data, where)
    except UserError as error:
        raise UserError(f"{error} (--overwrite does so)") from error
    found = {"name": index.name, "text_encoder": index.text_encoder, **index.recipe}
    same = same_encoder(index.text_encoder, encoder)
    wanted = {"name": name, "text_encoder": index.text_encoder if same else encoder, **made_by}
    differing = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
    if differing:
        differences = "; ".join(
            f"{key}: {_BRIEF.repr(found.get(key))} there, {_BRIEF.repr(wanted.get(key))} asked for" for key in differing
        )
        raise UserError(
            f"{folder} holds another data set ({differences}). Choose another --out, or replace it with --overwrite"
        )
    there = folder.sizes()
    damaged = [shard.name for shard in index.shards if there.get(shard.name) != shard.bytes]
    return f"{damaged[0]} is missing or has another size than its index says" if damaged else "packed"


def _pack_split(job: _Job, workers: int, max_rejects: float, part: Part) -> None:
    receipts = {size: _usable_receipts(job, folder) for size, folder in job.folders.items()}
    tasks = []
    for number, (name, pictures) in enumerate(job.shards.items()):
        missing = tuple((size, folder) for size, folder in job.folders.items() if name not in receipts[size])
        if missing and number % part.parts == part.number:
            tasks.append(_task(job, name, pictures, missing))
    # Those that do not count must not count for another part either, which would finish the set with shards that this
    # one is about to replace.
    for folder in job.folders.values():
        withdraw_receipts(folder, [task.name for task in tasks if folder in dict(task.folders).values()])
    resumed = len(job.shards) - len({name for name in job.shards if any(name not in r for r in receipts.values())})
    if resumed:
        print(f"packing {job.title}: {resumed} of {len(job.shards)} shards are there already", flush=True)

    rejected = list(job.listing.rejected)
    total = sum(len(task.records) for task in tasks)
    started = time.monotonic()
    if tasks:
        try:
            for number, result in run_tasks(pack_shard, tasks, total, workers, job.title):
                rejected += result.rejected
                if _are_too_many(rejected, job.listing, max_rejects):
                    raise UserError(_too_many(rejected, job.listing, max_rejects, job.top))
                if result.shards:
                    per_shard = job.made_by["samples_per_shard"]
                    _check_classes(result.distinct_classes, job.listing.records, job.split, per_shard)
                _keep(job, tasks[number], result)
        except BaseException:
            if rejected:
                _write_rejected(job.top, rejected)
            raise
    seconds = time.monotonic() - started
    print(
        f"packed {job.title}{'' if part == WHOLE else f' part {part.number + 1}/{part.parts}'}: "
        f"{total - len(rejected) + len(job.listing.rejected)} pictures, {len(tasks)} shards at "
        f"{' and '.join(map(str, job.folders))} px, {len(rejected)} rejected, {seconds:.0f} s, "
        f"{total / max(seconds, 1e-9):.0f} img/s -> {job.top}",
        flush=True,
    )
    _finish(job, max_rejects)


def _task(job: _Job, name: str, pictures: range, folders: tuple[tuple[int, Folder], ...]) -> Task:
    published = job.recipe.text_encoder == PUBLISHED
    return Task(
        source=job.source,
        records=job.listing.records[pictures.start : pictures.stop],
        text_encoder=None if published else job.recipe.text_encoder,
        embeddings=job.listing.embeddings[pictures.start : pictures.stop],
        folders=folders,
        name=name,
    )


def _usable_receipts(job: _Job, folder: Folder) -> dict[str, Receipt]:
    """Receipts whose shard is there; not those of shards with rejected pictures, which may have been mended."""
    there = folder.sizes()
    return {
        name: receipt
        for name, receipt in read_receipts(folder, job.identity).items()
        if receipt.shard is not None and not receipt.rejected and there.get(name) == receipt.shard.bytes
    }


def _keep(job: _Job, task: Task, packed: Packed) -> None:
    for size, folder in task.folders:
        receipt = Receipt(
            identity=job.identity,
            shard=packed.shards.get(size),
            text_dim=packed.text_dim,
            classes=tuple(sorted(packed.classes)),
            rejected=packed.rejected,
            enlarged=packed.enlarged.get(size, 0),
        )
        write_receipt(folder, task.name, receipt)


def _finish(job: _Job, max_rejects: float) -> None:
    """Write the indices if all shards of all parts are there."""
    found = {folder: read_receipts(folder, job.identity) for folder in job.folders.values()}
    left = {name for name in job.shards if any(name not in receipts for receipts in found.values())}
    if left:
        # Another part may have written the index and removed the receipts meanwhile.
        if any(INDEX_NAME not in folder.names() for folder in found):
            print(
                f"{job.title}: {len(left)} of {len(job.shards)} shards are left to other parts; no index yet",
                flush=True,
            )
        return
    rejected = list(job.listing.rejected)
    for name in job.shards:
        rejected += next(iter(found.values()))[name].rejected
    _write_rejected(job.top, rejected)
    if _are_too_many(rejected, job.listing, max_rejects):
        raise UserError(_too_many(rejected, job.listing, max_rejects, job.top))
    for size, folder in job.folders.items():
        index = _index(job, size, [found[folder][name] for name in job.shards])
        # Another part may finish at the same time. Its index is this one, and must not be missing for a moment.
        _clear(folder, keep={INDEX_NAME, *(shard.name for shard in index.shards)})
        folder.write(INDEX_NAME, index.to_bytes())
        if enlarged := sum(receipt.enlarged for receipt in found[folder].values()):
            print(f"{job.title}: {enlarged} pictures are smaller than {size} px and were enlarged", flush=True)
    remove_receipts(list(job.folders.values()))
    print(
        f"{job.title} is complete: {len(job.listing.records) + len(job.listing.rejected) - len(rejected)} pictures",
        flush=True,
    )


def _index(job: _Job, size: int, receipts: Sequence[Receipt]) -> Index:
    shards = tuple(receipt.shard for receipt in receipts if receipt.shard is not None)
    return Index(
        name=job.recipe.name,
        split=job.split,
        image_size=size,
        text_encoder=job.encoder,
        text_dim=receipts[0].text_dim,
        captions_per_image=job.listing.captions_per_image,
        classes=tuple(sorted({name for receipt in receipts for name in receipt.classes})),
        samples=sum(shard.samples for shard in shards),
        shards=shards,
        recipe=job.made_by,
    )


def _clear(folder: Folder, keep: set[str] | frozenset[str] = frozenset()) -> None:
    """Remove what an earlier pack left but `keep`: the index first, for without it nothing there counts."""
    names = folder.names()
    leftovers = [name for name in names if re.fullmatch(r"shard-\d{6,}\.tar", name) or name.endswith(TEMPORARY_SUFFIX)]
    for name in [INDEX_NAME, *leftovers]:
        if name in names and name not in keep:
            folder.remove(name)
    if not keep:
        remove_receipts([folder])


def _write_rejected(top: Folder, rejected: Sequence[dict[str, str]]) -> None:
    if rejected:
        lines = sorted(json.dumps(entry) for entry in rejected)
        top.write(REJECTED_NAME, ("\n".join(lines) + "\n").encode())
    else:
        top.remove(REJECTED_NAME)


def _are_too_many(rejected: Sequence[dict[str, str]], listing: Listing, max_rejects: float) -> bool:
    return len(rejected) > max_rejects * (len(listing.records) + len(listing.rejected)) or not listing.records


def _too_many(rejected: Sequence[dict[str, str]], listing: Listing, max_rejects: float, top: Folder) -> str:
    if not rejected:
        return f"there are no pictures for {top}; check --root, and --limit or --splits"
    examples = "".join(
        f"\n  {printable(entry['id'] or entry['key'])}: {printable(entry['reason'])}" for entry in rejected[:5]
    )
    return (
        f"{len(rejected)} of {len(listing.records) + len(listing.rejected)} pictures cannot be used so far, more than "
        f"--max-rejects {max_rejects:g} allows; no index was written. All of them: {top.url_of(REJECTED_NAME)}. "
        f"The first:{examples}\nMend or remove them, or raise --max-rejects"
    )
