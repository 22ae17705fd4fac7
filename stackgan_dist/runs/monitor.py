"""What a run shows: TensorBoard, metrics.jsonl, a status line a tick (or a progress bar on a terminal), other services.

Rank 0's. On an object store events and rows arrive once a minute, and with every checkpoint.

A full disk, or a fault of TensorBoard, costs what is shown, and no training.

A run that is resumed takes back the rows that lie after its checkpoint, so no step is reported twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from PIL import Image
from tqdm import tqdm

from stackgan_dist.config import LoggerName
from stackgan_dist.generation.grid import to_png
from stackgan_dist.runs.board import Board
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.loggers import Logger, Opening, RunState, open_page
from stackgan_dist.runs.loggers.background import BackgroundLogger
from stackgan_dist.runs.metrics import TERMS_OF_PROGRESS, Metric, Progress, metrics_of, status_line
from stackgan_dist.storage.files import write_bytes
from stackgan_dist.storage.upload import Uploader

T = TypeVar("T")

_BAR = "{desc}: {percentage:3.0f}%|{bar:10}| {n_fmt}/{total_fmt}, {remaining} left{postfix}"
"""The bar itself is short: what follows says more."""

_HAND_OVER_S = 60.0
"""Between two event files on an object store."""


class WaitClock:
    """Measures how much of the time goes into waiting for data."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._since = time.monotonic()

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """`batches`, timed while they make us wait."""
        iterator = iter(batches)
        while True:
            begin = time.monotonic()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            self._waited_s += time.monotonic() - begin
            yield batch

    @property
    def waited(self) -> float:
        """The share of the time since the last lap that was spent waiting."""
        return min(1.0, self._waited_s / max(time.monotonic() - self._since, 1e-9))

    def lap(self) -> tuple[float, float]:
        """(seconds, share of them spent waiting) since the last lap."""
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        waited, self._waited_s, self._since = self._waited_s, 0.0, now
        return elapsed, min(1.0, waited / elapsed)


@dataclass(frozen=True)
class Pages:
    """Where a run is shown beside its folder."""

    services: tuple[LoggerName, ...] = ()
    run: str = ""
    """The run's name."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Flat: {"training.batch_size": 64}."""


NO_PAGES = Pages()


class Monitor:
    """Writes a run's progress.

    Args:
        folder: the run.
        first_step: where this start begins; later rows of an earlier start are dropped.
        last_step: where the run ends.
        batch_size: of the global batch.
        title: what to call the run on the terminal.
        metrics: what it measures, by name.
        pages: where it is shown beside its folder.
    """

    def __init__(
        self,
        folder: RunFolder,
        first_step: int,
        last_step: int,
        batch_size: int,
        title: str,
        metrics: Mapping[str, Metric],
        pages: Pages = NO_PAGES,
    ) -> None:
        self._metrics = metrics
        progress = metrics_of(Progress, TERMS_OF_PROGRESS)
        self._curves = {name: f"{one.group}/{name}" for name, one in {**metrics, **progress}.items()}
        self._batch_size = batch_size
        self._first_step, self._last_step = first_step, last_step
        self._title = title
        self._begin = time.monotonic()
        reported = _drop_rows_after(folder, first_step)
        self._file = folder.metrics_file.open("ab", buffering=0)
        self._rows = b""
        """Not written yet."""
        self._folder = folder
        self._said: set[str] = set()
        self._board = Board(
            folder.path, folder.root, first_step + 1, lambda error: self._lost("TensorBoard's events", error)
        )
        self._loggers = [self._logger(name, pages, reported) for name in pages.services]
        self._uploader = (
            Uploader(folder.path, folder.root, (folder.metrics_file,), self.say) if folder.is_remote else None
        )
        self._handed_over = time.monotonic()
        self._bar = (
            tqdm(total=last_step, initial=first_step, desc=title, bar_format=_BAR, dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def say(self, message: str) -> None:
        """One line on the terminal."""
        if self._bar is not None:
            self._bar.write(f"{self._title}: {message}", file=sys.stderr)
        else:
            print(f"{self._title}: {message}", flush=True)

    def say_once(self, what: str, more: str) -> None:
        """One line, `what` and `more`; nothing where `what` was said before."""
        if what not in self._said:
            self._said.add(what)
            self.say(what + more)

    def hand_over(self) -> None:
        """On an object store: close the event file, and send it and the new rows there in the background."""
        if self._uploader is not None:
            self._board.close()
            self._handed_over = time.monotonic()
            self._uploader.start()

    def wait(self) -> None:
        """Wait for what was handed over last."""
        if self._uploader is not None:
            self._uploader.wait()

    def text(self, tag: str, content: str) -> None:
        """A text in TensorBoard, and on other pages."""
        self._board.text(tag, content)
        for logger in self._loggers:
            logger.text(tag, content)

    def tick(
        self,
        step: int,
        means: dict[str, float],
        elapsed_s: float,
        steps: int,
        waited: float,
        machine: Mapping[str, float] | None = None,
        note: str = "",
    ) -> None:
        """Report the `means` of the last `steps` steps, which took `elapsed_s` and end at `step`.

        They are of the monitor's metrics, and of the learning rate; `machine` has what is known of the rest of
        Progress, and `note` ends the status line.
        """  # fmt: skip
        machine = machine or {}
        speed = steps * self._batch_size / elapsed_s
        row = {
            "step": step,
            "images": step * self._batch_size,
            **means,
            "images_per_s": speed,
            "data_wait": waited,
            **machine,
        }
        self._rows += (json.dumps({name: float(f"{value:.6g}") for name, value in row.items()}) + "\n").encode()
        try:
            while self._rows:
                self._rows = self._rows[self._file.write(self._rows) :]
        except OSError as error:
            self._lost(self._folder.metrics_file.name, error)
        if time.monotonic() - self._handed_over > _HAND_OVER_S:
            self.hand_over()
        curves = {curve: row[name] for name, curve in self._curves.items() if name in row}
        self._board.scalars(curves, step)
        for logger in self._loggers:
            logger.scalars(curves, step)
        line = " | ".join(filter(None, (_speed(speed, waited, machine), status_line(self._metrics, means), note)))
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            self._bar.set_postfix_str(line)
        else:
            done = step - self._first_step
            left_s = (time.monotonic() - self._begin) / done * (self._last_step - step)
            print(
                f"{self._title}: step {step:,}/{self._last_step:,} ({step / self._last_step:.0%}), "
                f"{_clock(left_s)} left | {line}",
                flush=True,
            )

    def picture(self, step: int, tag: str, picture: Image.Image) -> None:
        """A picture in TensorBoard and on other pages, and as a file in the folder `tag` of the run."""
        png = to_png(picture)
        try:
            write_bytes(str(self._folder.path / tag / f"step-{step:09d}.png"), png)
        except OSError as error:
            self._lost(f"pictures ({tag}/)", error)
        self._board.picture(tag, png, picture.size, step)
        for logger in self._loggers:
            logger.picture(tag, png, step)

    def close(self, state: RunState = "done") -> None:
        """Flush everything; `state` is how it ended."""
        if self._bar is not None:
            self._bar.close()
        self._file.close()
        self._board.close()
        for logger in self._loggers:
            logger.close(state)
        if self._uploader is not None:
            self._uploader.finish()

    def _logger(self, name: LoggerName, pages: Pages, reported: int) -> BackgroundLogger:
        """A page in the service called `name`, by which a resumed run goes on in that of its earlier starts."""
        root, marker = self._folder.root, f"{name}.id"

        def open_it() -> Logger:
            known = root.read(marker).decode().strip() if self._first_step > 0 and root.exists(marker) else None
            folder = None if self._folder.is_remote else self._folder.path
            page = open_page(name, Opening(pages.run, pages.config, folder, known, reported if known else 0))
            if page.id != known:
                root.write(marker, f"{page.id}\n".encode())
            return page

        return BackgroundLogger(open_it, lambda error: self._failed(name, error))

    def _failed(self, service: str, error: Exception) -> None:
        """Say once that a service fails."""
        self.say_once(f"{service} fails", f" ({type(error).__name__}: {error}); training goes on, its page has gaps")

    def _lost(self, what: str, error: Exception) -> None:
        """Say once what is not written any more."""
        self.say_once(f"{what} could not be written", f" to {self._folder.path}: {error}; training goes on without")


def _speed(images_per_s: float, waited: float, machine: Mapping[str, float]) -> str:
    """The first part of the status line."""
    utilisation = f", MFU {machine['mfu']:.0%}" if "mfu" in machine else ""
    memory = f", {machine['memory_gb']:.2f} GB" if "memory_gb" in machine else ""
    return f"{images_per_s:,.0f} img/s{utilisation}, wait {waited:.1%}{memory}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _drop_rows_after(folder: RunFolder, step: int) -> int:
    """Remove the rows of metrics.jsonl that a resumed run will write again, and a row that a kill cut in half.

    Returns the last step that there was a row of, 0 without one.
    """
    if not folder.metrics_file.exists():
        return 0
    kept, last = [], 0
    for line in folder.metrics_file.read_text(encoding="utf-8").splitlines():
        try:
            last = max(last, reported := int(json.loads(line)["step"]))
            if reported <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    write_bytes(str(folder.metrics_file), "".join(kept).encode())
    return last
