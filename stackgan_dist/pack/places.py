"""Whether a data set may be packed to a place, before anything is listed or written there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence

from stackgan_dist.errors import UserError
from stackgan_dist.pack.balance import BALANCE_NAME, REJECTED_NAME
from stackgan_dist.pack.claim import look_and_check
from stackgan_dist.storage.connect import split_url
from stackgan_dist.storage.folder import Folder

LISTING_NAME = ".pack-listing"
"""Folder beside the splits in which a KeepingSource keeps its listing until all of them are complete."""


def check_places(root: str | None, out: Folder, splits: Sequence[str], sizes: Sequence[int]) -> None:
    """Raises UserError where the pictures lie where shards are to be written, or there lies what no pack has left."""
    if root is not None:
        _check_root(root, out, splits, sizes)
    _check_file(out, BALANCE_NAME, _is_balance)
    for split in splits:
        _check_file(out / split, REJECTED_NAME, _is_rejected)
        for size in sizes:
            look_and_check(out / split / str(size))


def _check_root(root: str, out: Folder, splits: Sequence[str], sizes: Sequence[int]) -> None:
    where = _absolute(root)
    tops = [out, *(out / split for split in splits)]
    inner = [out / LISTING_NAME, *(out / split / str(size) for split in splits for size in sizes)]
    for folder in [*tops, *inner]:
        written = _absolute(folder.url)
        if where == written or (folder in inner and where.startswith(f"{written}/")):
            raise UserError(
                f"--root {root} is in {folder}, which is written to: the pictures would be replaced while they are "
                "read; choose an --out beside --root"
            )


def _absolute(url: str) -> str:
    """One text for each folder, however it is given."""
    parts = split_url(url)
    if parts is not None:
        return "/".join(parts)
    return os.path.realpath(url.removeprefix("file://").removeprefix("local://"))


def _check_file(folder: Folder, name: str, is_own: Callable[[bytes], bool]) -> None:
    """Raises UserError where the file that a pack replaces in `folder` is not one that a pack has written."""
    try:
        data = folder.read(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except IsADirectoryError:
        data = b"{}"
    except OSError as error:
        raise UserError(f"cannot read {folder.url_of(name)}: {error.strerror or error}; check --out") from error
    try:
        own = is_own(data)
    except (ValueError, TypeError):
        own = False
    if not own:
        raise UserError(
            f"{folder.url_of(name)} is none that a pack has written, and would be replaced; choose another --out, or "
            "move it away. Nothing was changed"
        )


def _is_balance(data: bytes) -> bool:
    return {"name", "ledgers"} <= {*json.loads(data)}


def _is_rejected(data: bytes) -> bool:
    return all({"key", "id", "reason"} <= {*json.loads(line)} for line in data.decode().splitlines())
