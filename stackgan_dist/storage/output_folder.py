"""A folder for each call of a command that writes pictures: what one call wrote never mixes with another's.

Nothing but the order of writes and listings is asked of the store: a call puts a file of its own into a folder, then
looks what is there. Of two calls at once the later to look sees both files, so at most one finds itself alone.
"""

from __future__ import annotations

import random
import re
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import join, list_names, local_path, remove, write_bytes

_CLAIM = ".writing-"
_LONGEST_TITLE = 40
_PAUSE_S = 0.5


def check_output(out: str | None, *, overwrite: bool) -> None:
    """UserError when `output_folder` would not take `out`, for commands that have long to do before they write."""
    names = [] if out is None or overwrite else list_names(out)
    if names:
        raise UserError(
            f"{out} holds {len(names):,} files already ({names[0]} is one); give another folder with --out, or replace "
            "what an earlier call wrote there with --overwrite"
        )


@contextmanager
def output_folder(
    out: str | None, parent: str, title: str, is_ours: Callable[[str], bool], *, overwrite: bool
) -> Iterator[str]:
    """The folder to write to while inside: `out`, or a new one below `parent` called by a number and `title`.

    Args:
        out: as the user gave it; it must be empty or not there yet.
        parent: holds the folders of all calls for which none was given.
        title: any text; a few words of it stand in the name.
        is_ours: whether an earlier call of the same command wrote the file of this name.
        overwrite: remove what `is_ours` from `out`, and leave the rest of it alone.

    Raises UserError when `out` holds something and shall not be overwritten, or cannot be written.
    """
    where = out or parent
    try:
        if out is None:
            folder, claim = _new_folder(parent, title)
        else:
            folder, claim = out, _take(out, is_ours, overwrite)
    except OSError as error:
        raise UserError(f"cannot write to {where}: {error.strerror}; give another folder with --out") from error
    try:
        yield folder
    finally:
        remove(join(folder, claim))
        if (path := local_path(folder)) is not None and out is None:
            with suppress(OSError):  # it is not empty
                path.rmdir()


def _new_folder(parent: str, title: str) -> tuple[str, str]:
    while True:
        numbers = [int(found[1]) for name in list_names(parent) if (found := re.match(r"(\d{4,})(-|$)", name))]
        folder = join(parent, "-".join(filter(None, [f"{max(numbers, default=0) + 1:04d}", _words(title)])))
        claim = _claim(folder)
        if list_names(folder) == [claim]:
            return folder, claim
        remove(join(folder, claim))
        time.sleep(random.uniform(0, _PAUSE_S))  # or the two might meet again


def _take(out: str, is_ours: Callable[[str], bool], overwrite: bool) -> str:
    check_output(out, overwrite=overwrite)
    for name in list_names(out):
        if is_ours(name) or name.startswith(_CLAIM):  # of a call that was killed
            remove(join(out, name))
    claim = _claim(out)
    if [name for name in list_names(out) if name.startswith(_CLAIM)] != [claim]:
        remove(join(out, claim))
        raise UserError(f"another call writes to {out} at this moment; give another folder with --out")
    return claim


def _claim(folder: str) -> str:
    name = f"{_CLAIM}{uuid.uuid4().hex}"
    write_bytes(join(folder, name), b"")
    return name


def _words(title: str) -> str:
    """The first words of `title` in letters that every store and shell takes as they are; "" where it has none."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    words = ""
    for word in re.findall(r"[a-z0-9]+", plain):
        longer = f"{words}-{word}" if words else word[:_LONGEST_TITLE]
        if len(longer) > _LONGEST_TITLE:
            break
        words = longer
    return words
