"""What is to be packed of one split: which pictures, into which shards, and into which folders that lack it."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stackgan_dist.data.index import INDEX_NAME, parse_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.claim import Found, claim, identity_of, look_and_check, other_pack, release, shard_name
from stackgan_dist.pack.listing import Listing, cut, samples_per_shard, shards_of
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.rejects import check_rejected, write_rejected
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
    cleared: frozenset[int]
    """The sizes whose folders are cleared when the packing of the split begins."""
    top: Folder
    """The folder above them."""

    @property
    def identity(self) -> str:
        """Of what is being packed, whatever its size in pixels."""
        return identity_of(self.recipe.name, self.encoder, self.made_by)

    @property
    def shards(self) -> dict[str, range]:
        """Name of each shard -> its pictures."""
        count = len(self.listing.records)
        ranges = cut(count, shards_of(count, self.made_by["samples_per_shard"]))
        return {shard_name(number): pictures for number, pictures in enumerate(ranges)}

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
    """What is left to pack of a split, in folders below `top`. Nothing that is good is touched yet.

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
    ranges = cut(len(listing.records), shards_of(len(listing.records), per_shard))
    for pictures in ranges:
        shard = listing.records[pictures.start : pictures.stop]
        check_classes(len({_class_of(record) for record in shard}), listing.records, split, per_shard)
    folders, cleared = {}, set()
    for size in recipe.sizes:
        folder = top / str(size)
        found = look_and_check(folder)
        state = _state(found, recipe.name, encoder, made_by, overwrite)
        if state == "packed":
            print(
                f"{folder} is already packed ({len(listing.records)} pictures); --overwrite packs it again", flush=True
            )
            if found.mark is not None:
                release(folder)  # the pack that wrote the index was killed in that moment
            continue
        found.check(list(map(shard_name, range(len(ranges)))))
        if state != "open":
            if part != WHOLE:
                raise UserError(
                    f"{folder} is to be packed again ({state}), which parts that start at different times cannot agree "
                    "on; remove the folder first, or pack without --part"
                )
            cleared.add(size)
        folders[size] = folder
    return Job(recipe, encoder, split, source, listing, made_by, folders, frozenset(cleared), top)


def begin(job: Job) -> dict[int, Folder]:
    """Claim the folders of `job`, and clear those that are to be; returns those in which something is to be packed.

    Raises UserError where another pack has come first since the job was planned.
    """
    begun = {}
    for size, folder in job.folders.items():
        found = look_and_check(folder, job.shards)
        if found.index is not None and size not in job.cleared:
            if _state(found, job.recipe.name, job.encoder, job.made_by, overwrite=False) != "packed":
                raise UserError(other_pack(folder))
            print(f"{folder} has been packed meanwhile", flush=True)
            continue
        claim(found, job.identity, list(job.shards), clear_first=size in job.cleared)
        begun[size] = folder
    return begun


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


def _state(found: Found, name: str, encoder: str, made_by: dict[str, Any], overwrite: bool) -> str:
    """One of "packed", "open" (there is no index), and the reason why the folder is to be cleared first."""
    folder = found.folder
    if overwrite:
        return "--overwrite"
    if found.index is None:
        return "open"
    try:
        index = parse_index(found.index, folder.url_of(INDEX_NAME))
    except UserError as error:
        raise UserError(f"{error} (--overwrite does so)") from error
    has = {"name": index.name, "text_encoder": index.text_encoder, **index.recipe}
    same = same_encoder(index.text_encoder, encoder)
    wanted = {"name": name, "text_encoder": index.text_encoder if same else encoder, **made_by}
    differing = sorted(key for key in {*has, *wanted} if has.get(key) != wanted.get(key))
    if differing:
        differences = "; ".join(
            f"{key}: {_BRIEF.repr(has.get(key))} there, {_BRIEF.repr(wanted.get(key))} asked for" for key in differing
        )
        raise UserError(
            f"{folder} holds another data set ({differences}). Choose another --out, or replace it with --overwrite"
        )
    there = folder.sizes()
    damaged = [shard.name for shard in index.shards if there.get(shard.name) != shard.bytes]
    return f"{damaged[0]} is missing or has another size than its index says" if damaged else "packed"
