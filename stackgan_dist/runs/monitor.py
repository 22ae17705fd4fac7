"""What a run shows: TensorBoard, metrics.jsonl, a status line a tick (or a progress bar on a terminal).

Rank 0's. On an object store events and rows arrive once a minute, and with every checkpoint.

A full disk costs what is shown, and no training.

A run that is resumed takes back the rows that lie after its checkpoint, so no step is reported twice.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from PIL import Image
from tqdm import tqdm

from stackgan_dist.generation.grid import to_png
from stackgan_dist.runs.board import Board
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.storage.files import write_bytes
from stackgan_dist.storage.upload import Uploader

T = TypeVar("T")

GAN_CURVES = """\
| curve | what it is |
|---|---|
| loss/discriminator_loss | of the three pairs: real + (wrong + fake) / 2 |
| loss/generator_loss | how far fakes are from being called real, without KL and other terms |
| loss/kl | of the conditioning augmentation, before its weight: how much text gets through |
| discriminator/real | probability of "real and matching" that D gives to pictures with their text; it should be high |
| discriminator/wrong | ... to pictures with a text of another class; low means that D reads texts |
| discriminator/fake | ... to fakes, before D's update; near 0 for long means that D has won |
| gradient_norm/... | over the global batch, before the update |
| run/images, run/learning_rate | pictures seen so far; Adam's rate |
| speed/images_per_s, speed/data_wait | of the global batch; the share of the time spent waiting for data |
| samples (image) | fixed sentences and noise: the moving average of G (ema), its last weights (raw), the real picture |

Points are means since the point before.
"""
"""What the curves of a GAN's run are, for its page in TensorBoard."""

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
        self._metrics = folder.metrics_file.open("ab", buffering=0)
        self._rows = b""
        """Not written yet."""
        self._folder = folder
        self._told: set[str] = set()
        self._board = Board(
            folder.path, folder.url, first_step + 1, lambda error: self._lost("TensorBoard's events", error)
        )
        self._uploader = (
            Uploader(folder.path, folder.url, (folder.metrics_file,), self.say) if folder.is_remote else None
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
        """A text in TensorBoard."""
        self._board.write(lambda board: board.add_text(tag, content))

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
        self._rows += (json.dumps({name: float(f"{value:.6g}") for name, value in row.items()}) + "\n").encode()
        try:
            while self._rows:
                self._rows = self._rows[self._metrics.write(self._rows) :]
        except OSError as error:
            self._lost(self._folder.metrics_file.name, error)
        if time.monotonic() - self._handed_over > _HAND_OVER_S:
            self.hand_over()
        curves = {_board_name(name): value for name, value in row.items() if name != "step"}
        self._board.write(lambda board: board.add_scalars(curves, step))
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
        """A picture in TensorBoard, and as a file in the folder `tag` of the run."""
        png = to_png(picture)
        try:
            write_bytes(str(self._folder.path / tag / f"step-{step:09d}.png"), png)
        except OSError as error:
            self._lost(f"pictures ({tag}/)", error)
        self._board.write(lambda board: board.add_image(tag, png, picture.size, step))

    def close(self) -> None:
        """Flush everything."""
        if self._bar is not None:
            self._bar.close()
        self._metrics.close()
        self._board.close()
        self.wait()
        self.hand_over()
        self.wait()

    def _lost(self, what: str, error: OSError) -> None:
        """Say once what is not written any more."""
        if what not in self._told:
            self._told.add(what)
            self.say(f"{what} could not be written to {self._folder.path}: {error}; training goes on without")


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
