"""What is to be packed of one split: which pictures, into which shards, and into which folders that lack it."""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stackgan_dist.data.index import INDEX_NAME, parse_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.listing import Listing, cut, samples_per_shard, shards_of
from stackgan_dist.pack.receipts import remove_receipts
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.rejects import check_rejected, write_rejected
from stackgan_dist.pack.shard_writer import TEMPORARY_SUFFIX
from stackgan_dist.pack.sources import Record, Source
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text.folders import same_encoder

_BRIEF = reprlib.Repr()
_BRIEF.maxstring = 100  # the whole name of a trained text encoder, but not all of a long option


class Part(NamedTuple):
    """Which shards to pack: those whose number is `number` modulo `parts`, counted from 0."""

    number: int
    parts: int


WHOLE = Part(0, 1)


@dataclass(frozen=True)
class Job:
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
        count = len(self.listing.records)
        ranges = cut(count, shards_of(count, self.made_by["samples_per_shard"]))
        return {f"shard-{number:06d}.tar": pictures for number, pictures in enumerate(ranges)}

    @property
    def title(self) -> str:
        """What to call it on the screen."""
        return f"{self.recipe.name} {self.split}"


def plan_job(
    recipe: Recipe,
    encoder: str,
    split: str,
    source: Source,
    listing: Listing,
    top: Folder,
    max_rejects: float,
    overwrite: bool,
    part: Part,
) -> Job:
    """What is left to pack of a split, in folders below `top`, whose unfinished content is cleared away.

    Raises UserError where too many pictures cannot be used, a shard would hold one class only, or something else is
    there.
    """
    try:
        check_rejected(listing.rejected, listing, max_rejects, top)
    except UserError:
        write_rejected(top, listing.rejected)
        raise
    per_shard = samples_per_shard(recipe, listing, source)
    made_by = {
        "source": recipe.source,
        "options": dict(recipe.options),
        "seed": recipe.seed,
        "samples_per_shard": per_shard,
        "records": len(listing.records),
        "records_sha256": listing.digest,
    }
    for pictures in cut(len(listing.records), shards_of(len(listing.records), per_shard)):
        shard = listing.records[pictures.start : pictures.stop]
        check_classes(len({_class_of(record) for record in shard}), listing.records, split, per_shard)
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
            clear(folder)
        folders[size] = folder
    return Job(recipe, encoder, split, source, listing, made_by, folders, top)


def _class_of(record: Record) -> str:
    return record.class_name or record.key


def check_classes(classes: int, records: Sequence[Record], split: str, per_shard: int) -> None:
    """UserError where a shard, or its whole split, holds fewer than two classes, of which `classes` were counted."""
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


def clear(folder: Folder, keep: set[str] | frozenset[str] = frozenset()) -> None:
    """Remove what an earlier pack left but `keep`: the index first, for without it nothing there counts."""
    names = folder.names()
    leftovers = [name for name in names if re.fullmatch(r"shard-\d{6,}\.tar", name) or name.endswith(TEMPORARY_SUFFIX)]
    for name in [INDEX_NAME, *leftovers]:
        if name in names and name not in keep:
            folder.remove(name)
    if not keep:
        remove_receipts([folder])
