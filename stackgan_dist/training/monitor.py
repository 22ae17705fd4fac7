"""What a run shows: TensorBoard, metrics.jsonl, a status line a tick (or a progress bar on a terminal).

Rank 0's. On an object store events and rows arrive once a minute, and with every checkpoint.

A run that is resumed takes back the rows that lie after its checkpoint, so no step is reported twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from stackgan_dist.data.storage import write_bytes
from stackgan_dist.training.run_folder import RunFolder
from stackgan_dist.training.upload import Uploader

T = TypeVar("T")

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

    def lap(self) -> tuple[float, float]:
        """(seconds, share of them spent waiting) since the last lap."""
        now = time.monotonic()
        elapsed = max(now - self._since, 1e-9)
        waited, self._waited_s, self._since = self._waited_s, 0.0, now
        return elapsed, min(1.0, waited / elapsed)


def gan_losses(metrics: dict[str, float]) -> str:
    """What a status line says of a step of both networks."""
    return (
        f"D {metrics['discriminator_loss']:.3f} "
        f"(real {metrics['real']:.2f} wrong {metrics['wrong']:.2f} fake {metrics['fake']:.2f}) "
        f"G {metrics['generator_loss']:.3f} KL {metrics['kl']:.3f}"
    )


class Monitor:
    """Writes a run's progress.

    Args:
        folder: the run.
        first_step: where this start begins; later rows of an earlier start are dropped.
        last_step: where the run ends.
        batch_size: of the global batch.
        title: what to call the run on the terminal.
        summary: what its status line says of a tick's metrics.
    """

    def __init__(
        self,
        folder: RunFolder,
        first_step: int,
        last_step: int,
        batch_size: int,
        title: str,
        summary: Callable[[dict[str, float]], str] = gan_losses,
    ) -> None:
        self._summary = summary
        self._batch_size = batch_size
        self._first_step, self._last_step = first_step, last_step
        self._title = title
        self._begin = time.monotonic()
        _drop_rows_after(folder, first_step)
        self._metrics = folder.metrics_file.open("a", encoding="utf-8")
        self._folder = folder
        self._open_board: SummaryWriter | None = SummaryWriter(str(folder.path), purge_step=first_step + 1)
        self._uploader = (
            Uploader(folder.path, folder.url, (folder.metrics_file,), self.say) if folder.is_remote else None
        )
        self._handed_over = time.monotonic()
        self._bar = (
            tqdm(total=last_step, initial=first_step, desc=title, unit="step", dynamic_ncols=True)
            if sys.stderr.isatty()
            else None
        )

    def say(self, message: str) -> None:
        """One line on the terminal."""
        if self._bar is not None:
            self._bar.write(f"{self._title}: {message}", file=sys.stderr)
        else:
            print(f"{self._title}: {message}", flush=True)

    @property
    def _board(self) -> SummaryWriter:
        if self._open_board is None:
            self._open_board = SummaryWriter(str(self._folder.path))
        return self._open_board

    def hand_over(self) -> None:
        """On an object store: close the event file, and send it and the new rows there in the background."""
        if self._uploader is not None:
            if self._open_board is not None:
                self._open_board.close()
                self._open_board = None
            self._handed_over = time.monotonic()
            self._uploader.start()

    def wait(self) -> None:
        """Wait for what was handed over last."""
        if self._uploader is not None:
            self._uploader.wait()

    def text(self, tag: str, content: str) -> None:
        """A text in TensorBoard."""
        self._board.add_text(tag, content)

    def tick(self, step: int, metrics: dict[str, float], elapsed_s: float, steps: int, waited: float) -> None:
        """Report the mean `metrics` of the last `steps` steps, which took `elapsed_s` and end at `step`."""
        speed = steps * self._batch_size / elapsed_s
        row = {
            "step": step,
            "images": step * self._batch_size,
            **metrics,
            "images_per_s": speed,
            "data_wait": waited,
        }
        self._metrics.write(json.dumps({name: float(f"{value:.6g}") for name, value in row.items()}) + "\n")
        self._metrics.flush()
        if time.monotonic() - self._handed_over > _HAND_OVER_S:
            self.hand_over()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(_board_name(name), value, step)
        line = f"{speed:,.0f} img/s, wait {waited:.1%} | {self._summary(metrics)}"
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
        """A picture in TensorBoard."""
        self._board.add_image(tag, np.asarray(picture), step, dataformats="HWC")

    def close(self) -> None:
        """Flush everything."""
        if self._bar is not None:
            self._bar.close()
        self._metrics.close()
        if self._open_board is not None:
            self._open_board.close()
            self._open_board = None
        self.wait()
        self.hand_over()
        self.wait()


def _board_name(name: str) -> str:
    groups = {
        "loss": ("discriminator_loss", "generator_loss", "kl", "joint_embedding"),
        "discriminator": ("real", "wrong", "fake"),
        "gradient_norm": ("discriminator_gradient", "generator_gradient", "gradient"),
        "accuracy": ("pictures", "texts"),
        "speed": ("images_per_s", "data_wait"),
    }
    group = next((group for group, names in groups.items() if name in names), "run")
    return f"{group}/{name}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _drop_rows_after(folder: RunFolder, step: int) -> None:
    """Remove the rows of metrics.jsonl that a resumed run will write again, and a row that a kill cut in half."""
    if not folder.metrics_file.exists():
        return
    kept = []
    for line in folder.metrics_file.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            continue
    write_bytes(str(folder.metrics_file), "".join(kept).encode())
