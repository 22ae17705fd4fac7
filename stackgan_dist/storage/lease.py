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
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import StoreError

RENEW_S = 5.0
SILENT_S = 30.0
"""An owner that has not renewed for so long is gone."""
_PAUSE_S = 2.0
"""Longer than a small write takes."""


@contextmanager
def leased(folder: Folder, name: str, patience_s: float, lost: Callable[[str], None]) -> Iterator[None]:
    """Own the object `name` in `folder` while inside; UserError when another owner keeps it for `patience_s`.

    `lost` is called, from a thread, with the name of another owner that has taken over.
    """
    lease = _Lease(folder, name)
    lease.acquire(patience_s)
    ended = threading.Event()
    thread = threading.Thread(target=lease.renew, args=(ended, lost), name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(StoreError, OSError):  # then it is waited out
            lease.give_back()


class _Lease:
    """One claim to an object."""

    def __init__(self, folder: Folder, object_name: str) -> None:
        self._folder, self._object = folder, object_name
        self._name = f"process {os.getpid()} on {os.uname().nodename} ({uuid.uuid4().hex[:8]})"

    def acquire(self, patience_s: float) -> None:
        begin = since = time.monotonic()
        seen: str | None = None
        while True:
            content = self._content()
            now = time.monotonic()
            if content != seen:
                seen, since = content, now
            if not content or now - since > SILENT_S:  # an empty file names nobody
                self._write()
                time.sleep(_PAUSE_S)
                if self._owner() == self._name:
                    return
            elif now - begin > patience_s:
                raise UserError(
                    f"{self._folder} is in use by another start of this run ({self._owner()}); "
                    "end that one, or choose another --run.name"
                )
            time.sleep(0.5)

    def renew(self, ended: threading.Event, lost: Callable[[str], None]) -> None:
        while not ended.wait(RENEW_S):
            # A store or disk that fails for long costs the lease only if somebody else wants it.
            with suppress(StoreError, OSError):
                owner = self._owner()
                if owner not in (None, self._name):
                    lost(f"another start of this run ({owner})")
                    return
                self._write()

    def give_back(self) -> None:
        if self._owner() == self._name:
            self._folder.remove(self._object)

    def _write(self) -> None:
        self._folder.write(self._object, f"{self._name}\n{time.time_ns()}\n".encode())

    def _content(self) -> str | None:
        try:
            return self._folder.read(self._object).decode()
        except FileNotFoundError:
            return None

    def _owner(self) -> str | None:
        content = self._content()
        return content.partition("\n")[0] if content else None
