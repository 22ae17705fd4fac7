"""What is finished of a data set while it is being packed: a small JSON file for each shard, written after it.

By them a pack that was killed goes on where it was, and processes on many nodes need not know of each other: the one
that finds all receipts there writes the index, and they go. A receipt counts only for the very data set that it was
made for.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from stackgan_dist.data.index import Shard
from stackgan_dist.storage.folder import Folder

_FOLDER = "receipts"


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
    (folder / _FOLDER).write(f"{name}.json", json.dumps(dataclasses.asdict(receipt)).encode())


def read_receipts(folder: Folder, identity: str) -> dict[str, Receipt]:
    """The receipts in `folder` that were made for `identity`, by the names of their shards."""
    found: dict[str, Receipt] = {}
    receipts = folder / _FOLDER
    for name in receipts.names():
        try:
            content = json.loads(receipts.read(name))
            shard = Shard(**content.pop("shard")) if content.get("shard") else None
            receipt = Receipt(**{**content, "shard": shard})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            continue  # another process has just finished the set, or this is no receipt of ours
        if receipt.identity == identity:
            found[name.removesuffix(".json")] = receipt
    return found


def withdraw_receipts(folder: Folder, names: Collection[str]) -> None:
    """Remove the receipts of these shards of the data set in `folder`, where there are any."""
    receipts = folder / _FOLDER
    for name in {f"{name}.json" for name in names}.intersection(receipts.names()):
        receipts.remove(name)


def remove_receipts(folders: Sequence[Folder]) -> None:
    """Remove all receipts of the data sets in `folders`."""
    for folder in folders:
        folder.remove(_FOLDER)
