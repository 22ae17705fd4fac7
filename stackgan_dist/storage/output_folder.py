"""A folder for each call of a command that writes pictures: what one call wrote never mixes with another's.

Nothing but the order of writes and listings is asked of the store: a call puts a file of its own, its claim, into a
folder, then looks what is there. Of two calls at once the later to look sees both files, so at most one finds itself
alone. The claim goes when all is written, and stays when a call fails, is stopped or killed: what lies beside it may
be a part, and commands that read pictures refuse it (`check_whole`).
"""

from __future__ import annotations

import random
import re
import time
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator
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
        part = ", of a call that did not finish or that is still writing" if claim_among(names) else ""
        raise UserError(
            f"{out} holds {len(names):,} files already ({names[-1] if part else names[0]} is one){part}; give another "
            "folder with --out, or replace what an earlier call wrote there with --overwrite"
        )


def claim_among(names: Iterable[str]) -> str | None:
    """The claim among these names of files, with their folders or without: what lies beside it may be a part."""
    return next((name for name in names if name.rpartition("/")[2].startswith(_CLAIM)), None)


def check_whole(where: object, names: Iterable[str]) -> None:
    """UserError when the files `names`, which lie at `where`, may be a part of what a call was to write."""
    if (claim := claim_among(names)) is not None:
        raise UserError(
            f"{where} holds {claim}, which a call that writes pictures there puts first and takes away when it has "
            "finished: these may be a part of them. If it still runs, wait for it; else call it again with "
            "--overwrite, or remove that file to take what is there for all of it"
        )


def check_replaced(out: Folder, names: Iterable[str], mark: bytes, command: str) -> None:
    """UserError when one of the files `names` in `out` lacks `mark`, which all that an earlier call wrote holds."""
    for name in names:
        if mark not in content_of(out, name):
            raise UserError(
                f"{out} holds {name}, which would be replaced, and no earlier call of `{command}` wrote it; give "
                "another folder with --out, or move it away"
            )


def content_of(folder: Folder, name: str) -> bytes:
    """Of a file; nothing where it is none, or cannot be read."""
    try:
        return folder.read(name)
    except OSError:
        return b""


@contextmanager
def output_folder(
    out: Folder | None, parent: Folder, title: str, is_ours: Callable[[str], bool], *, overwrite: bool, call: str = ""
) -> Iterator[Folder]:
    """The folder to write to while inside: `out`, or a new one below `parent` called by a number and `title`.

    Args:
        out: as the user gave it; it must be empty or not there yet.
        parent: holds the folders of all calls for which none was given.
        title: any text; a few words of it stand in the name.
        is_ours: whether an earlier call of the same command wrote the file of this name.
        overwrite: remove what `is_ours` from `out`, and leave the rest of it alone.
        call: the content of the claim, for commands that have to know whose it is (`claim_among`).

    Raises UserError when `out` holds something and shall not be overwritten, or cannot be written. Any
    OSError that is raised inside counts as a write's, so prints, whose reader may be gone, belong after it.
    """
    with _explained(out or parent):
        if out is None:
            folder, claim = _new_folder(parent, title, call)
        else:
            folder, claim = out, _take(out, is_ours, overwrite, call)
        before = folder.names()
    try:
        with _explained(folder):
            yield folder
    except BaseException:
        # Whatever ends it, a signal too: with a file of this call in the folder the claim stays and says that it is a
        # part. It stays as well where the store does not answer, and the first fault is the one to be told.
        with suppress(OSError, UserError):
            if folder.names() == before:
                _give_back(folder, claim, new=out is None)
        raise
    with _explained(folder):
        _give_back(folder, claim, new=out is None)


def _give_back(folder: Folder, claim: str, *, new: bool) -> None:
    if new:
        _leave(folder, claim)
    else:
        folder.remove(claim)


@contextmanager
def _explained(where: Folder) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {where}: {error.strerror}; give another folder with --out") from error


def _new_folder(parent: Folder, title: str, call: str) -> tuple[Folder, str]:
    while True:
        numbers = [int(found[1]) for name in parent.names() if (found := re.match(r"(\d{4,})(-|$)", name))]
        folder = parent / "-".join(filter(None, [f"{max(numbers, default=0) + 1:04d}", _words(title)]))
        claim = _claim(folder, call)
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


def _take(out: Folder, is_ours: Callable[[str], bool], overwrite: bool, call: str) -> str:
    check_output(out, overwrite=overwrite)
    claim = _claim(out, call)  # first, so that a part of what is removed here has a claim beside it all the time
    names = out.names()
    if claim in names and overwrite:
        for name in names:
            if name != claim and (is_ours(name) or name.startswith(_CLAIM)):  # of a call that did not finish
                out.remove(name)
        names = out.names()
    if [name for name in names if name.startswith(_CLAIM)] != [claim]:
        out.remove(claim)
        raise UserError(f"another call writes to {out} at this moment; give another folder with --out")
    return claim


def _claim(folder: Folder, call: str) -> str:
    name = f"{_CLAIM}{uuid.uuid4().hex}"
    folder.write(name, call.encode())
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
