"""Whose a folder of shards is: what a pack may write over and remove there, and what it leaves alone.

A folder is a pack's where a pack has left its mark, its receipts or its index. Of what lies there, a pack's own is what
these list, and temporary files, which are known by their exact names. All else is somebody else's: it is not removed,
and a pack that would replace it does not begin.

The mark is written before anything else and goes after the index is there. It names the data set that is being packed:
parts of one pack write the same mark, and where two packs of different data sets meet in one folder, the one that came
first finds the other's mark in place of its own, and stops.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackgan_dist.data.index import INDEX_NAME, parse_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack.receipts import (
    RECEIPTS_NAME,
    has_receipt,
    receipt_names,
    remove_receipts,
    shard_of,
)
from stackgan_dist.storage.folder import Folder

MARK_NAME = ".packing"
"""In a folder of shards, while it is packed."""
_SHARD = re.compile(r"shard-\d{6,}\.tar")
_TEMPORARY = re.compile(
    r"\.shard-\d{6,}\.[a-z0-9_]+\.tar\.tmp"  # shard_writer.temporary_tar
    rf"|\.({re.escape(INDEX_NAME)}|{re.escape(MARK_NAME)})\.[a-z0-9_]+\.tmp"  # Folder.write on a disk
)


def shard_name(number: int) -> str:
    """What the shard of this number is called."""
    return f"shard-{number:06d}.tar"


def identity_of(name: str, encoder: str, made_by: Mapping[str, Any]) -> str:
    """Of a data set, whatever its size in pixels: as its index has its name, its encoder and its recipe."""
    what = {"name": name, "text_encoder": encoder, **made_by}
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Mark:
    """The content of the mark."""

    identity: str
    """Of the data set that is being packed."""
    shards: int
    """How many it will have."""
    earlier: tuple[str, ...] = ()
    """Shards that another pack has left there, which go when this one is complete."""

    @property
    def names(self) -> frozenset[str]:
        """The names of all these shards."""
        return frozenset({*map(shard_name, range(self.shards)), *self.earlier})

    def to_bytes(self) -> bytes:
        """The file's content."""
        return json.dumps({"packing": self.identity, "shards": self.shards, "earlier": self.earlier}).encode()


@dataclass(frozen=True)
class Found:
    """What lies in a folder of shards, or one that is to become one."""

    folder: Folder
    names: frozenset[str]
    """All names there."""
    index: bytes | None
    """The index; damaged, maybe, but a pack's."""
    mark: Mark | None
    ours: bool
    """Whether a pack has left something there."""
    owned: frozenset[str]
    """Shards that are there and are a pack's."""
    foreign: tuple[str, ...]
    """What has a name that a pack writes, and is not a pack's."""

    def check(self, shards: Collection[str]) -> None:
        """Raises UserError where packing `shards` there would replace or mix with what is somebody else's."""
        written = {INDEX_NAME, MARK_NAME, RECEIPTS_NAME, *shards}
        refused = [name for name in self.foreign if not self.ours or name in written]
        if refused:
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            raise UserError(
                f"{self.folder.url_of(refused[0])}{more} would be mixed with or replaced by what is packed there, and "
                "no index, receipt or mark of a pack lists it; choose another --out, or move it away. Nothing was "
                "changed"
            )


def look(folder: Folder) -> Found:
    """What is in `folder` now, and whose it is."""
    try:
        names = frozenset(folder.names())
        index = folder.read(INDEX_NAME) if INDEX_NAME in names else None
    except FileNotFoundError:
        index = None  # another pack has just removed it
    except OSError as error:
        raise UserError(f"cannot read {folder.url_of(INDEX_NAME)}: {error.strerror or error}; check --out") from error
    listed = None if index is None else _listed(index)
    mark = _read_mark(folder) if MARK_NAME in names else None
    receipts = receipt_names(folder) if RECEIPTS_NAME in names else []
    named = {shard for shard in map(shard_of, receipts) if shard}
    # Packs of before there were marks have left receipts alone; a worker's last shards had none yet.
    unmarked = mark is None and listed is None and bool(named) and has_receipt(folder, sorted(named))
    ours = unmarked or mark is not None or listed is not None
    shards = {name for name in names if _SHARD.fullmatch(name)}
    own = {*(listed or ()), *(mark.names if mark else ()), *(named if ours else ())}
    foreign = set() if unmarked else shards - own
    foreign |= {INDEX_NAME} if index is not None and listed is None else set()
    foreign |= {MARK_NAME} if MARK_NAME in names and mark is None else set()
    if RECEIPTS_NAME in names and not receipts and not (folder / RECEIPTS_NAME).is_there():
        foreign.add(RECEIPTS_NAME)  # a file
    if not ours:
        foreign |= {f"{RECEIPTS_NAME}/{name}" for name in receipts}
    return Found(
        folder,
        names,
        index if listed is not None else None,
        mark,
        ours,
        frozenset(shards & own),
        tuple(sorted(foreign)),
    )


def look_and_check(folder: Folder, shards: Collection[str] = ()) -> Found:
    """As `look`. Raises UserError where packing `shards` there would touch what is somebody else's."""
    found = look(folder)
    try:
        found.check(shards)
    except UserError:
        # A listing is not of one moment: another part may have begun or finished meanwhile.
        found = look(folder)
        found.check(shards)
    return found


def claim(found: Found, identity: str, shards: Sequence[str], clear_first: bool) -> None:
    """Mark the folder as that of the pack `identity` of `shards`; with `clear_first`, what packs have left there goes.

    Raises UserError where it cannot be written to.
    """
    folder = found.folder
    mark = Mark(identity, len(shards), tuple(sorted(found.owned.difference(shards))))
    if mark != found.mark:
        try:
            folder.write(MARK_NAME, mark.to_bytes())
        except OSError as error:
            raise UserError(f"cannot write to {folder}: {error.strerror or error}; change --out") from error
    if clear_first:
        clear(found)


def clear(found: Found, keep: Collection[str] = ()) -> None:
    """Remove what packs have left there but `keep`: the index first, for without it nothing there counts.

    The receipts go with the index.
    """
    own = [*sorted(found.owned), *sorted(name for name in found.names if _TEMPORARY.fullmatch(name))]
    for name in [*([INDEX_NAME] if found.index is not None else []), *own]:
        if name not in keep:
            found.folder.remove(name)
    if INDEX_NAME not in keep:
        remove_receipts(found.folder)


def release(folder: Folder) -> None:
    """Take away what says that the folder is being packed, once its index is there."""
    remove_receipts(folder)
    folder.remove(MARK_NAME)


def check_claim(folder: Folder, identity: str) -> None:
    """Raises UserError where `folder` is no longer that of the pack `identity`, nor holds its complete set."""
    mark = _read_mark(folder)
    if mark is None:
        try:
            data = folder.read(INDEX_NAME)
        except (FileNotFoundError, NotADirectoryError):
            mark = _read_mark(folder)  # of a pack that has just replaced the index
            if mark is None:
                raise UserError(
                    f"{folder.url_of(MARK_NAME)} was removed while {folder} was being packed, by another pack or by "
                    "hand; wait until nothing else writes there, and pack again"
                ) from None
        else:
            index = parse_index(data, folder.url_of(INDEX_NAME))
            mark = Mark(identity_of(index.name, index.text_encoder, index.recipe), len(index.shards))
    if mark.identity != identity:
        raise UserError(other_pack(folder))


def other_pack(folder: Folder) -> str:
    """What to say of a folder in which two packs have met."""
    return (
        f"another pack, of another data set or of other options, writes to {folder} at the same time; choose another "
        "--out for one of them, and pack this one again"
    )


def _read_mark(folder: Folder) -> Mark | None:
    try:
        fields = json.loads(folder.read(MARK_NAME))
        return Mark(str(fields["packing"]), int(fields["shards"]), tuple(map(str, fields["earlier"])))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, TypeError, KeyError):
        return None


def _listed(index: bytes) -> frozenset[str] | None:
    """The shards that an index lists, of whatever schema; None where it is none of a pack."""
    try:
        content = json.loads(index)
        content["schema"]
        return frozenset(str(shard["name"]) for shard in content["shards"])
    except (ValueError, TypeError, KeyError):
        return None
