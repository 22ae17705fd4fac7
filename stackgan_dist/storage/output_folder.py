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
from stackgan_dist.storage.folder import Folder

_CLAIM = ".writing-"
_LONGEST_TITLE = 40
_PAUSE_S = 0.5


def check_output(out: Folder | None, *, overwrite: bool) -> None:
    """UserError when `output_folder` would not take `out`, for commands that have long to do before they write."""
    names = [] if out is None or overwrite else out.names()
    if names:
        raise UserError(
            f"{out} holds {len(names):,} files already ({names[0]} is one); give another folder with --out, or replace "
            "what an earlier call wrote there with --overwrite"
        )


@contextmanager
def output_folder(
    out: Folder | None, parent: Folder, title: str, is_ours: Callable[[str], bool], *, overwrite: bool
) -> Iterator[Folder]:
    """The folder to write to while inside: `out`, or a new one below `parent` called by a number and `title`.

    Args:
        out: as the user gave it; it must be empty or not there yet.
        parent: holds the folders of all calls for which none was given.
        title: any text; a few words of it stand in the name.
        is_ours: whether an earlier call of the same command wrote the file of this name.
        overwrite: remove what `is_ours` from `out`, and leave the rest of it alone.

    Raises UserError when `out` holds something and shall not be overwritten, or cannot be written. Any
    OSError that is raised inside counts as a write's, so prints, whose reader may be gone, belong after it.
    """
    with _explained(out or parent):
        if out is None:
            folder, claim = _new_folder(parent, title)
        else:
            folder, claim = out, _take(out, is_ours, overwrite)
    try:
        with _explained(folder):
            yield folder
    finally:
        if out is None:
            _leave(folder, claim)
        else:
            folder.remove(claim)


@contextmanager
def _explained(where: Folder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {where}: {error.strerror}; give another folder with --out") from error


def _new_folder(parent: Folder, title: str) -> tuple[Folder, str]:
    while True:
        numbers = [int(found[1]) for name in parent.names() if (found := re.match(r"(\d{4,})(-|$)", name))]
        folder = parent / "-".join(filter(None, [f"{max(numbers, default=0) + 1:04d}", _words(title)]))
        claim = _claim(folder)
        if folder.names() == [claim]:
            return folder, claim
        _leave(folder, claim)
        time.sleep(random.uniform(0, _PAUSE_S))  # or the two might meet again


def _leave(folder: Folder, claim: str) -> None:
    """Take back `claim`; a folder on a disk goes with it where nothing else is in it, as one on a store does."""
    folder.remove(claim)
    if folder.path is not None:
        with suppress(OSError):  # it is not empty
            folder.path.rmdir()


def _take(out: Folder, is_ours: Callable[[str], bool], overwrite: bool) -> str:
    check_output(out, overwrite=overwrite)
    for name in out.names():
        if is_ours(name) or name.startswith(_CLAIM):  # of a call that was killed
            out.remove(name)
    claim = _claim(out)
    if [name for name in out.names() if name.startswith(_CLAIM)] != [claim]:
        out.remove(claim)
        raise UserError(f"another call writes to {out} at this moment; give another folder with --out")
    return claim


def _claim(folder: Folder) -> str:
    name = f"{_CLAIM}{uuid.uuid4().hex}"
    folder.write(name, b"")
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
