"""A run's page in TensorBoard: a full disk or a fault of TensorBoard leaves gaps in it, and does not end the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stackgan_dist.storage.folder import Folder

if TYPE_CHECKING:
    from stackgan_dist.runs.event_file import Clock, EventFile


class Board:
    """Event files in `folder`: opened when there is something to write, anew after `close` or a failure.

    Args:
        folder: where they are written.
        home: where those of earlier starts are.
        purge_step: what an earlier start wrote from this step on is not shown.
        lost: gets what could not be written.
    """

    def __init__(self, folder: Path, home: Folder, purge_step: int, lost: Callable[[Exception], None]) -> None:
        self._folder, self._home = folder, home
        self._purge_step: int | None = purge_step
        self._lost = lost
        self._clock: Clock | None = None
        self._file: EventFile | None = None

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """A point in each of the curves."""
        self._write(lambda file: file.add_scalars(values, step))

    def text(self, tag: str, content: str) -> None:
        """A text in Markdown."""
        self._write(lambda file: file.add_text(tag, content))

    def picture(self, tag: str, png: bytes, size: tuple[int, int], step: int) -> None:
        """An RGB picture, as the content of a PNG file of `size` (width, height)."""
        self._write(lambda file: file.add_image(tag, png, size, step))

    def _write(self, entry: Callable[[EventFile], object]) -> None:
        """Write `entry`, or give `lost` the reason why that was not possible."""
        try:
            if self._file is None:
                self._file = self._open()
            entry(self._file)
        except Exception as error:
            self.close()
            self._lost(error)

    def close(self) -> None:
        """End the event file, if one is open."""
        file, self._file = self._file, None
        with suppress(OSError):  # what it holds was written before
            if file is not None:
                file.close()

    def _open(self) -> EventFile:
        from stackgan_dist.runs.event_file import Clock, EventFile  # tensorboard, which rank 0 alone needs

        self._clock = self._clock or Clock(self._home)
        file = EventFile(self._folder, self._clock, self._purge_step)
        self._purge_step = None
        return file
