"""Measurements that are worth keeping: tensors in a file whose name is a digest of all that decides them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes, main_first
from stackgan_dist.errors import UserError
from stackgan_dist.runs.checkpoint import pack, unpack
from stackgan_dist.storage.folder import Folder, FolderLike


def kept_or_made(
    where: FolderLike | None, identity: Mapping[str, Any], make: Callable[[], dict[str, Tensor]], ranks: Ranks
) -> dict[str, Tensor]:
    """The tensors of `make()`, which all ranks call; or those that it gave before, of the same `identity`.

    Rank 0 reads and writes; `where` is the folder, None keeps nothing. A damaged file is named and made again.
    Raises UserError when the folder cannot be written.
    """
    if where is None:
        return make()
    folder = Folder.at(where)
    text = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:32]
    name = f"{digest}.pt"
    found = broadcast_bytes(_read(folder, name) if ranks.is_main else None, ranks)
    if found is not None:
        return unpack(found, folder.url_of(name))
    made = make()

    def write() -> None:
        try:
            folder.write(name, pack(made))
            folder.write(f"{digest}.json", (text + "\n").encode())
        except OSError as error:
            raise UserError(f"cannot write {folder.url_of(name)}: {error.strerror}; give another folder") from error

    main_first(write, ranks)
    return made


def _read(folder: Folder, name: str) -> bytes | None:
    try:
        data = folder.read(name)
        unpack(data, folder.url_of(name))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UserError as error:
        print(f"made again: {error}", flush=True)
        return None
    return data
