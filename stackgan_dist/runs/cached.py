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
from stackgan_dist.storage.files import join, read_bytes, write_bytes


def kept_or_made(
    folder: str | None, identity: Mapping[str, Any], make: Callable[[], dict[str, Tensor]], ranks: Ranks
) -> dict[str, Tensor]:
    """The tensors of `make()`, which all ranks call; or those that it gave before, of the same `identity`.

    Rank 0 reads and writes; `folder` is a folder or URL, None keeps nothing. A damaged file is named and made again.
    Raises UserError when the folder cannot be written.
    """
    if folder is None:
        return make()
    text = json.dumps(identity, sort_keys=True)
    url = join(folder, f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.pt")
    found = broadcast_bytes(_read(url) if ranks.is_main else None, ranks)
    if found is not None:
        return unpack(found, url)
    made = make()

    def write() -> None:
        try:
            write_bytes(url, pack(made))
            write_bytes(url.removesuffix(".pt") + ".json", (text + "\n").encode())
        except OSError as error:
            raise UserError(f"cannot write {url}: {error.strerror}; give another folder") from error

    main_first(write, ranks)
    return made


def _read(url: str) -> bytes | None:
    try:
        data = read_bytes(url)
        unpack(data, url)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UserError as error:
        print(f"made again: {error}", flush=True)
        return None
    return data
