"""What a source lists, made ready for packing: checked, with equally many captions, in the order of packing."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.pack.pictures import Frame, PictureError, encode_jpeg, load_picture
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.shard_writer import rejection
from stackgan_dist.pack.sources import EmbeddedSource, Record, Source
from stackgan_dist.randomness import permutation
from stackgan_dist.text import PUBLISHED, load_encoder

LONGEST_CAPTION = 2000
"""Characters. What is longer is a document, or a file that was read wrongly."""
MOST_CAPTIONS = 10
"""Captions of a picture that are kept unless the recipe says otherwise."""

_KEY = re.compile(r"[A-Za-z0-9_-]{1,80}")
_PROBED = 64
"""Pictures by which the size of shards is judged."""
_TAR_BYTES_PER_SAMPLE = 3 * (512 + 256) + 600
"""Headers, padding and KEY.json of a sample, about."""


@dataclass(frozen=True)
class Tally:
    """What a listing took of the source's records, and what it did not: for the balance."""

    pictures: int
    """Pictures that the source has of the split, in whatever state."""
    beyond_limit: int
    """Those of them that --limit leaves out."""
    absent: tuple[dict[str, str], ...]
    """The rejected that the source has no picture of."""
    captions: tuple[int, ...]
    """Captions that the source gives to each picture of the listing."""
    rejected_captions: int
    captions_beyond_limit: int


@dataclass(frozen=True)
class Listing:
    """The pictures of one split in the order of packing."""

    records: tuple[Record, ...]
    embeddings: tuple[NDArray[np.float16], ...]
    """Those that the publisher gives, if the recipe asks for them; else none."""
    rejected: tuple[dict[str, str], ...]
    """`rejection` of those that cannot be used."""
    captions_per_image: int
    tally: Tally

    @property
    def digest(self) -> str:
        """sha256 of all that the source says about the pictures, so that a changed source is noticed."""
        digest = hashlib.sha256()
        for number in sorted(range(len(self.records)), key=lambda number: self.records[number].key):
            said = dataclasses.asdict(self.records[number])
            del said["extent"], said["fault"], said["present"]
            if said["crop"] is None:
                del said["crop"]
            if not said["pad"]:
                del said["pad"]
            digest.update(json.dumps(said, sort_keys=True).encode())
            if self.embeddings:
                digest.update(self.embeddings[number].tobytes())
        return digest.hexdigest()


def list_split(recipe: Recipe, split: str, source: Source, limit: int | None) -> Listing:
    """The pictures of `split` in the order of packing: a permutation that depends on the recipe's seed alone.

    Raises UserError when the source is not as expected.
    """
    listed = _with_faults(source.records(split))
    order = permutation(len(listed), recipe.seed)[:limit]
    chosen = [listed[i] for i in order]
    records = [record for record in chosen if not record.fault]
    faulty = [record for record in chosen if record.fault]
    rejected = tuple(rejection(record, record.fault) for record in faulty)
    tally = Tally(
        pictures=sum(record.present for record in listed),
        beyond_limit=sum(record.present for record in listed) - sum(record.present for record in chosen),
        absent=tuple(rejection(record, record.fault) for record in faulty if not record.present),
        captions=tuple(len(record.captions) for record in records),
        rejected_captions=sum(len(record.captions) for record in faulty),
        captions_beyond_limit=sum(len(r.captions) for r in listed) - sum(len(r.captions) for r in chosen),
    )
    if recipe.text_encoder != PUBLISHED:
        count = recipe.captions_per_image or min(MOST_CAPTIONS, max((len(r.captions) for r in records), default=1))
        records = [dataclasses.replace(record, captions=_repeated(record.captions, count)) for record in records]
        return Listing(tuple(records), (), rejected, count, tally)
    if not isinstance(source, EmbeddedSource):
        raise UserError(f"the source {recipe.source} has no published embeddings; choose a text encoder with --encoder")
    embeddings = source.embeddings(split, records) if records else []
    shapes = {rows.shape for rows in embeddings} | {
        (len(record.captions), rows.shape[1]) for record, rows in zip(records, embeddings, strict=True)
    }
    if len(shapes) > 1:
        raise UserError(f"{split}: captions and published embeddings differ in number: {sorted(shapes)[:3]}")
    count = len(records[0].captions) if records else 1
    return Listing(tuple(records), tuple(embeddings), rejected, count, tally)


def shards_of(count: int, samples_per_shard: int) -> int:
    """The smallest number of shards that hold `count` pictures, with so many in one at most."""
    return -(-count // samples_per_shard)


def cut(count: int, shards: int) -> list[range]:
    """`count` pictures in so many `shards`, equal in size up to one picture."""
    bounds = [number * count // shards for number in range(shards + 1)]
    return [range(begin, end) for begin, end in itertools.pairwise(bounds)]


def samples_per_shard(recipe: Recipe, listing: Listing, source: Source) -> int:
    """The recipe's number, or the one that makes shards of its megabytes at the largest size."""
    if recipe.shard_mb is None:
        return recipe.samples_per_shard
    sizes = []
    for record in listing.records[:_PROBED]:
        try:
            image = load_picture(source.picture(record))
            sizes.append(
                len(encode_jpeg(Frame.of(image, record.crop, pad=record.pad).resample(image, max(recipe.sizes))))
            )
        except (OSError, PictureError):
            continue
    if not sizes:
        raise UserError(f"none of the first {_PROBED} pictures can be decoded; look at them before packing")
    dim = listing.embeddings[0].shape[1] if listing.embeddings else load_encoder(recipe.text_encoder).dim
    sample = sum(sizes) / len(sizes) + listing.captions_per_image * dim * 2 + _TAR_BYTES_PER_SAMPLE
    return max(2, int(recipe.shard_mb * 1e6 / sample))


def _with_faults(records: Sequence[Record]) -> list[Record]:
    seen: dict[str, str] = {}
    checked = []
    for record in records:
        if not record.fault and not _KEY.fullmatch(record.key):
            raise UserError(
                f"the key {record.key!r} of {record.source_id or 'a record'} is not up to 80 letters, digits, - and _"
            )
        fault = record.fault or _fault(record)
        present = record.present
        if not fault:
            if record.key in seen:
                fault = f"the id {record.key} occurs twice; its first picture is kept"
                present &= record.source_id != seen[record.key]
            seen.setdefault(record.key, record.source_id)
        checked.append(dataclasses.replace(record, fault=fault, present=present) if fault else record)
    return checked


def _fault(record: Record) -> str:
    """What is wrong with the texts of `record`, or ""."""
    for what, text in (("file name", record.source_id), ("class", record.class_name)):
        if not _is_unicode(text):
            return f"its {what} is not UTF-8; rename it"
    if not record.captions:
        return "there is no caption"
    for number, caption in enumerate(record.captions, 1):
        if not caption.strip():
            return f"caption {number} is empty"
        if len(caption) > LONGEST_CAPTION:
            return f"caption {number} has {len(caption)} characters, more than {LONGEST_CAPTION}"
        if not _is_unicode(caption) or any(ord(character) < 32 for character in caption):
            return f"caption {number} holds control characters or broken Unicode"
    return ""


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(character) < 0xE000 for character in text)


def _repeated(captions: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple(captions[i % len(captions)] for i in range(count))
