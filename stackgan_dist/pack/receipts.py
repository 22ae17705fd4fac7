"""What is finished of a data set while it is being packed: a small JSON file for each shard, written after it.

By them a pack that was killed goes on where it was, and processes on many nodes need not know of each other: the one
that finds all receipts there writes the index, and they go. A receipt counts only for the very data set that it was
made for.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from stackgan_dist.data.index import Shard
from stackgan_dist.storage.folder import Folder

RECEIPTS_NAME = "receipts"
"""Folder beside the shards."""
_RECEIPT = re.compile(r"(shard-\d{6,}\.tar)\.json")
_TEMPORARY = re.compile(r"\.shard-\d{6,}\.tar\.json\.[a-z0-9_]+\.tmp")
"""What a killed `Folder.write` of a receipt leaves on a disk."""


@dataclass(frozen=True)
class Receipt:
    """One finished shard of one size."""

    identity: str
    """Of the data set that is being packed."""
    shard: Shard | None
    """None when every picture was rejected."""
    text_dim: int
    classes: tuple[str, ...]
    rejected: tuple[dict[str, str], ...]
    enlarged: int = 0
    """Pictures that were smaller than the stored squares."""


def write_receipt(folder: Folder, name: str, receipt: Receipt) -> None:
    """Keep the receipt of the shard `name` of the data set in `folder`."""
    (folder / RECEIPTS_NAME).write(f"{name}.json", json.dumps(dataclasses.asdict(receipt)).encode())


def receipt_names(folder: Folder) -> list[str]:
    """The names of all that lies among the receipts in `folder`, whoever's it is."""
    return (folder / RECEIPTS_NAME).names()


def shard_of(name: str) -> str:
    """The shard whose receipt has this name; "" for a name that no receipt has."""
    match = _RECEIPT.fullmatch(name)
    return match[1] if match else ""


def read_receipts(folder: Folder, identity: str) -> dict[str, Receipt]:
    """The receipts in `folder` that were made for `identity`, by the names of their shards."""
    found: dict[str, Receipt] = {}
    for name in receipt_names(folder):
        receipt = _read(folder, name) if shard_of(name) else None
        if receipt is not None and receipt.identity == identity:
            found[shard_of(name)] = receipt
    return found


def has_receipt(folder: Folder, shards: Iterable[str]) -> bool:
    """Whether one of these shards has a receipt that can be read, for whatever data set it was made."""
    return any(_read(folder, f"{name}.json") is not None for name in shards)


def withdraw_receipts(folder: Folder, names: Collection[str]) -> None:
    """Remove the receipts of these shards of the data set in `folder`, where there are any."""
    receipts = folder / RECEIPTS_NAME
    for name in {f"{name}.json" for name in names}.intersection(receipts.names()):
        receipts.remove(name)


def remove_receipts(folder: Folder) -> None:
    """Remove all receipts of the data set in `folder`, and nothing else that lies among them."""
    names = receipt_names(folder)
    if not names and not (folder / RECEIPTS_NAME).is_there():
        return
    own = [name for name in names if _RECEIPT.fullmatch(name) or _TEMPORARY.fullmatch(name)]
    if len(own) == len(names):
        folder.remove(RECEIPTS_NAME)  # at once, which on a store is one request
        return
    for name in own:
        (folder / RECEIPTS_NAME).remove(name)


def _read(folder: Folder, name: str) -> Receipt | None:
    try:
        content = json.loads((folder / RECEIPTS_NAME).read(name))
        shard = Shard(**content.pop("shard")) if content.get("shard") else None
        return Receipt(**{**content, "shard": shard})
    except (FileNotFoundError, IsADirectoryError, ValueError, TypeError, KeyError, AttributeError):
        return None  # another process has just finished the set, or this is no receipt of ours
