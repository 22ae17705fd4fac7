"""What a run shows: rows, curves, pictures and the status line, each step once however often the run was started."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.monitor import Monitor, WaitClock
from stackgan_dist.train.step_metrics import METRICS

BATCH = 16


def _metrics(step: int) -> dict[str, float]:
    """Different for each name and step."""
    return {name: number + step / 100 for number, name in enumerate((*METRICS, "learning_rate"), 1)}


def _monitor(folder: Path, first_step: int = 0, last_step: int = 10) -> Monitor:
    return Monitor(RunFolder(folder), first_step, last_step, BATCH, "stage-I", METRICS)


def _run(folder: Path, first_step: int, last_step: int) -> None:
    monitor = _monitor(folder, first_step)
    for step in range(first_step + 1, last_step + 1):
        monitor.tick(step, _metrics(step), elapsed_s=2.0, steps=1, waited=0.25)
        monitor.picture(step, "samples", Image.new("RGB", (8, 6), (step, 0, 255)))
    monitor.close()


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def _board(folder: Path) -> EventAccumulator:
    board = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    board.Reload()
    return board


def test_a_row_a_tick(tmp_path: Path) -> None:
    _run(tmp_path, 0, 3)
    rows = _rows(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    for row in rows:
        expected = {
            "step": row["step"],
            "images": row["step"] * BATCH,
            "images_per_s": BATCH / 2,
            "data_wait": 0.25,
            **_metrics(row["step"]),
        }
        assert row == pytest.approx(expected, rel=1e-5)


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    monitor = _monitor(tmp_path)
    monitor.tick(1, _metrics(1), 1.0, 1, 0.0)
    assert len(_rows(tmp_path)) == 1
    monitor.close()


def test_a_resumed_run_continues_the_rows_and_takes_back_what_it_will_write_again(tmp_path: Path) -> None:
    _run(tmp_path, 0, 6)
    _run(tmp_path, 4, 8)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_row_cut_in_half_is_dropped(tmp_path: Path) -> None:
    _run(tmp_path, 0, 3)
    file = tmp_path / "metrics.jsonl"
    file.write_text(file.read_text() + '{"step": 4, "im')
    _run(tmp_path, 3, 5)
    assert [row["step"] for row in _rows(tmp_path)] == [1, 2, 3, 4, 5]


def test_tensorboard_has_every_number_and_the_picture(tmp_path: Path) -> None:
    _run(tmp_path, 0, 2)
    board = _board(tmp_path)
    curves = {tag.rpartition("/")[2]: board.Scalars(tag) for tag in board.Tags()["scalars"]}
    assert curves.keys() == _rows(tmp_path)[0].keys() - {"step"}
    for name, points in curves.items():
        assert [point.step for point in points] == [1, 2]
        assert [point.value for point in points] == pytest.approx([row[name] for row in _rows(tmp_path)])
    picture = board.Images("samples")[1]
    assert (picture.step, picture.width, picture.height) == (2, 8, 6)


def test_the_picture_in_tensorboard_is_the_picture(tmp_path: Path) -> None:
    import io

    monitor = _monitor(tmp_path)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    monitor.picture(1, "samples", picture)
    monitor.text("config", "the text")
    monitor.close()
    board = _board(tmp_path)
    shown = Image.open(io.BytesIO(board.Images("samples")[0].encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(picture))
    assert board.Tensors("config/text_summary")[0].tensor_proto.string_val[0] == b"the text"


@pytest.mark.parametrize("first_step", [0, 4])
def test_tensorboard_shows_each_step_once_after_a_restart(tmp_path: Path, first_step: int) -> None:
    _run(tmp_path, 0, 6)
    _run(tmp_path, first_step, 7)
    board = _board(tmp_path)
    assert [point.step for point in board.Scalars("discriminator/real")] == [1, 2, 3, 4, 5, 6, 7]
    assert [picture.step for picture in board.Images("samples")] == [1, 2, 3, 4, 5, 6, 7]


def test_the_status_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = _monitor(tmp_path, first_step=1000, last_step=3000)
    monitor._begin = time.monotonic() - 100  # as if the first 500 steps had taken 100 s
    metrics = dict.fromkeys((*METRICS, "learning_rate"), 0.0)
    metrics |= {
        "discriminator_loss": 1.2345,
        "generator_loss": 2.5,
        "kl": 0.125,
        "real": 0.9,
        "wrong": 0.3,
        "fake": 0.2,
    }
    monitor.tick(1500, metrics, elapsed_s=4.0, steps=500, waited=0.031)
    monitor.close()
    line = capsys.readouterr().out
    assert line == (
        "stage-I: step 1,500/3,000 (50%), 5:00 left | 2,000 img/s, wait 3.1% | "
        "D 1.234 (real 0.90 wrong 0.30 fake 0.20) G 2.500 KL 0.125\n"
    ).replace("1.234 ", f"{1.2345:.3f} ")


def test_hours_are_shown_when_there_are_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monitor = _monitor(tmp_path, last_step=100)
    monitor._begin = time.monotonic() - 120
    monitor.tick(1, _metrics(1), 1.0, 1, 0.0)
    monitor.close()
    assert re.search(r"\(1%\), 3:18:0\d left", capsys.readouterr().out)


def test_a_terminal_gets_a_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monitor = _monitor(tmp_path, first_step=4)
    monitor.say("a message")
    monitor.tick(6, _metrics(6), 1.0, 2, 0.0)
    monitor.close()
    output = capsys.readouterr()
    assert "stage-I: a message\n" in output.err
    assert "6/10" in output.err
    assert "32 img/s" in output.err
    assert output.out == ""


def test_a_full_disk_costs_what_is_shown_and_is_told_once(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    monitor = _monitor(small_disk, last_step=3)
    monitor.tick(1, _metrics(1), 1.0, 1, 0.0)
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"):
        ballast.write_bytes(bytes(65 * 1024))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for step in range(2, 40):
        monitor.tick(step, _metrics(step), 1.0, 1, 0.0)
        monitor.picture(step, "samples", noise)
    ballast.unlink()
    monitor.tick(40, _metrics(40), 1.0, 1, 0.0)
    monitor.picture(40, "samples", noise)
    monitor.close()

    said = capfd.readouterr()
    assert "Traceback" not in said.err
    for what in ("TensorBoard's events", "metrics.jsonl", "pictures (samples/)"):
        assert said.out.count(f"{what} could not be written to {small_disk}: [Errno 28] No space left") == 1
    assert [row["step"] for row in _rows(small_disk)] == list(range(1, 41))  # what was held back came later
    assert [file.name for file in (small_disk / "samples").iterdir()] == ["step-000000040.png"]
    # By its name alone a file of the same second may sort before its elders.
    newest = max(small_disk.glob("events.*"), key=lambda file: file.stat().st_mtime_ns)
    assert _board(newest).Scalars("loss/kl")[-1].step == 40


def test_the_clock_tells_waiting_from_working() -> None:
    def slow() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.04)
            yield number

    clock = WaitClock()
    seen = []
    for number in clock.watch(slow()):
        time.sleep(0.02)
        seen.append(number)
    elapsed, share = clock.lap()
    assert seen == [0, 1, 2]
    assert 0.18 <= elapsed < 1.0
    assert 0.12 / elapsed * 0.95 <= share <= 1 - 0.06 / elapsed + 0.01
    assert clock.lap()[1] == 0
