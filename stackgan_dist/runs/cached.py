"""Measurements that are worth caching: tensors in a file whose name is a digest of all that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes, main_first
from stackgan_dist.errors import UserError
from stackgan_dist.runs.checkpoint import from_bytes, to_bytes
from stackgan_dist.storage.folder import Folder, FolderLike


def cached_or_made(
    where: FolderLike | None, identity: Mapping[str, Any], make: Callable[[], dict[str, Tensor]], ranks: Ranks
) -> dict[str, Tensor]:
    """The tensors of `make()`, which all ranks call; or those that it gave before, of the same `identity`.

    Rank 0 reads and writes; `where` is the folder, None keeps nothing. A damaged file is named and made again.
    Raises UserError when the folder cannot be written.
    """
    if where is None:
        return make()
    folder = Folder.at(where)
    digest = _digest(identity)
    name = f"{digest}.pt"
    found = broadcast_bytes(_read(folder, name) if ranks.is_main else None, ranks)
    if found is not None:
        return from_bytes(found, folder.url_of(name))
    made = make()

    def write() -> None:
        data = to_bytes(made)
        about = {"identity": identity, "sha256": hashlib.sha256(data).hexdigest()}
        try:
            folder.write(name, data)
            folder.write(f"{digest}.json", (json.dumps(about, sort_keys=True) + "\n").encode())
        except OSError as error:
            raise UserError(f"cannot write {folder.url_of(name)}: {error.strerror}; give another folder") from error

    main_first(write, ranks)
    return made


def is_cached(where: FolderLike | None, identity: Mapping[str, Any], ranks: Ranks) -> bool:
    """Whether `cached_or_made` would find the tensors of this `identity`; rank 0 looks, and all ranks call it."""
    if where is None:
        return False
    found = Folder.at(where).exists(f"{_digest(identity)}.pt") if ranks.is_main else False
    return broadcast_bytes(b"" if found else None, ranks) is not None


def _digest(identity: Mapping[str, Any]) -> str:
    """Names the files of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def _read(folder: Folder, name: str) -> bytes | None:
    try:
        data = folder.read(name)
        about = json.loads(folder.read(f"{name.removesuffix('.pt')}.json"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:
        about = None
    if not isinstance(about, dict) or about.get("sha256") != hashlib.sha256(data).hexdigest():
        print(f"made again: {folder.url_of(name)} is damaged, or was kept without a digest", flush=True)
        return None
    return data
