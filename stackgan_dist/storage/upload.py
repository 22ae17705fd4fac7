"""What a run on an object store writes on this node, carried there: an object cannot be appended to.

Files are handed over when they are complete (a closed event file, a picture) or have complete lines (the metrics),
and copied in the background, so that a slow store never holds up a step.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import Folder


class Uploader:
    """Copies files below `folder` to the same names in `target`.

    Args:
        folder: on this node.
        target: of the run, on a store.
        kept: files that go on growing; all others are removed once they have arrived.
        report: gets a line about what could not be copied; it is tried again at the next occasion.
    """

    def __init__(self, folder: Path, target: Folder, kept: tuple[Path, ...], report: Callable[[str], None]) -> None:
        self._folder, self._target, self._kept, self._report = folder, target, kept, report
        self._thread: threading.Thread | None = None
        self._arrived: dict[Path, int] = {}

    def start(self) -> None:
        """Copy what is there now, after what is being copied already."""
        files = []
        for path in sorted(self._folder.rglob("*")):
            with suppress(FileNotFoundError):  # the copy under way has just taken it
                if path.is_file():
                    files.append((path, path.stat().st_size))
        previous = self._thread
        # Not a daemon: the interpreter must not end in the middle of a write.
        self._thread = threading.Thread(target=self._copy, args=(files, previous), name="upload")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the copies under way."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Copy what is left and wait for it; then see that what goes on growing is there, and send it again if not.

        A store that was cut off in one write of a file may drop another one of it.
        """
        for _ in range(2):
            self.wait()
            self.start()
            self.wait()
            try:
                sizes = self._target.sizes()
            except (UserError, OSError) as error:
                self._report(f"{self._target} cannot be listed, to see whether all has arrived: {error}")
                return
            lacking = [path for path in self._kept if path.exists() and sizes.get(path.name) != path.stat().st_size]
            if not lacking:
                return
            for path in lacking:
                self._arrived.pop(path, None)
        self._report(f"{', '.join(path.name for path in lacking)} did not arrive whole at {self._target}")

    def _copy(self, files: list[tuple[Path, int]], previous: threading.Thread | None) -> None:
        if previous is not None:
            previous.join()
        for path, size in files:
            try:
                if self._arrived.get(path) == size or not path.exists():  # an earlier copy has taken it
                    continue
                with path.open("rb") as file:
                    content = file.read(size)
                self._target.write(path.relative_to(self._folder).as_posix(), content)
                self._arrived[path] = size
                if path not in self._kept:
                    path.unlink()
            except (UserError, OSError) as error:
                self._report(f"{path.name} could not be copied to {self._target} yet: {error}")
                return
