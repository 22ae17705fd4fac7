"""One owner at a time for a run on an object store, or a file system, where no file can be locked.

The owner's name lies in an object that it writes anew every few seconds. A start that finds one waits until it is
removed, or has not changed for longer than an owner is ever silent; that is measured by the waiter's own clock, so
clocks need not agree. Two that take over at once write one after the other, and after a pause only the last of them
still finds its own name (Fischer's algorithm; stores are consistent after a write).
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import read_bytes, remove, write_bytes
from stackgan_dist.storage.retry import StoreError

RENEW_S = 5.0
SILENT_S = 30.0
"""An owner that has not renewed for so long is gone."""
_PAUSE_S = 2.0
"""Longer than a small write takes."""


@contextmanager
def leased(url: str, patience_s: float, lost: Callable[[str], None]) -> Iterator[None]:
    """Own the object at `url` while inside; UserError when another owner keeps it for `patience_s`.

    `lost` is called, from a thread, with the name of another owner that has taken over.
    """
    name = f"process {os.getpid()} on {os.uname().nodename} ({uuid.uuid4().hex[:8]})"
    _acquire(url, name, patience_s)
    ended = threading.Event()
    thread = threading.Thread(target=_renew, args=(url, name, ended, lost), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError, OSError):  # then it is waited out
            if _owner(url) == name:
                remove(url)


def _acquire(url: str, name: str, patience_s: float) -> None:
    begin = since = time.monotonic()
    seen: str | None = None
    while True:
        content = _content(url)
        now = time.monotonic()
        if content != seen:
            seen, since = content, now
        if not content or now - since > SILENT_S:  # an empty file names nobody
            _write(url, name)
            time.sleep(_PAUSE_S)
            if _owner(url) == name:
                return
        elif now - begin > patience_s:
            raise UserError(
                f"{url.rpartition('/')[0]} is in use by another start of this run ({_owner(url)}); "
                "end that one, or choose another --run.name"
            )
        time.sleep(0.5)


def _renew(url: str, name: str, ended: threading.Event, lost: Callable[[str], None]) -> None:
    while not ended.wait(RENEW_S):
        with suppress(
            StoreError, OSError
        ):  # a store or disk that fails for long costs the lease only if somebody else wants it
            owner = _owner(url)
            if owner not in (None, name):
                lost(f"another start of this run ({owner})")
                return
            _write(url, name)


def _write(url: str, name: str) -> None:
    write_bytes(url, f"{name}\n{time.time_ns()}\n".encode())


def _content(url: str) -> str | None:
    try:
        return read_bytes(url).decode()
    except FileNotFoundError:
        return None


def _owner(url: str) -> str | None:
    content = _content(url)
    return content.partition("\n")[0] if content else None
