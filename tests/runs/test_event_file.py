"""Event files under clocks that go wrong: TensorBoard's own readers see every step once, and no time going back."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from PIL import Image
from tensorboard.backend.event_processing.directory_watcher import DirectoryWatcher
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from tensorboard.backend.event_processing.io_wrapper import IsSummaryEventsFile

from stackgan_dist.runs.event_file import Clock, EventFile, scalars_file
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.monitor import Monitor
from stackgan_dist.storage import lease
from stackgan_dist.storage.folder import Folder
from stackgan_dist.train.step_metrics import METRICS

HOURS = 3600.0


@pytest.fixture
def set_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set this machine's clock so many hours off."""
    true = time.time

    def set_to(hours: float) -> None:
        monkeypatch.setattr(time, "time", lambda: true() + hours * HOURS)

    return set_to


def _train(folder: str | Path, first_step: int, last_step: int) -> None:
    monitor = Monitor(RunFolder(folder), first_step, last_step, 16, "stage-I", METRICS)
    for step in range(first_step + 1, last_step + 1):
        monitor.tick(step, dict.fromkeys((*METRICS, "learning_rate"), float(step)), 2.0, 1, 0.25)
        monitor.picture(step, "samples", Image.new("RGB", (8, 6), (step, 0, 255)))
    monitor.close()


def _board(folder: Path) -> EventAccumulator:
    board = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0})
    board.Reload()
    return board


@pytest.mark.parametrize("hours", [-2.0, -30 * 24.0, 0.0, 5.0])
def test_a_run_resumed_under_another_clock_is_shown_whole(
    tmp_path: Path, set_clock: Callable[[float], None], hours: float
) -> None:
    _train(tmp_path, 0, 23)
    set_clock(hours)
    _train(tmp_path, 20, 40)
    points = _board(tmp_path).Scalars("loss/kl")
    assert [(point.step, point.value) for point in points] == [(step, step) for step in range(1, 41)]
    times = [point.wall_time for point in points]
    assert times == sorted(times)
    assert [picture.step for picture in _board(tmp_path).Images("samples")] == list(range(1, 41))


def test_a_board_that_watches_sees_the_second_start(tmp_path: Path, set_clock: Callable[[float], None]) -> None:
    _train(tmp_path, 0, 20)
    watcher = DirectoryWatcher(str(tmp_path), LegacyEventFileLoader, IsSummaryEventsFile)
    assert max(event.step for event in watcher.Load()) == 20
    set_clock(-2)
    _train(tmp_path, 20, 40)
    assert max(event.step for event in watcher.Load()) == 40


def test_a_clock_set_back_while_the_run_goes_on(tmp_path: Path, set_clock: Callable[[float], None]) -> None:
    clock = Clock(Folder.at(tmp_path))
    file = EventFile(tmp_path, clock)
    for step, hours in enumerate((0.0, -2.0, 1.0, -1.0)):
        set_clock(hours)
        file.add_scalars({"curve": 1.0}, step)
    times = [point.wall_time for point in _board(tmp_path).Scalars("curve")]
    assert times == sorted(times)
    assert times[2] - times[0] == pytest.approx(HOURS, abs=60)


def test_times_go_on_at_their_own_pace(tmp_path: Path, set_clock: Callable[[float], None]) -> None:
    _train(tmp_path, 0, 1)
    set_clock(-2)
    clock = Clock(Folder.at(tmp_path))
    begin = clock.now()
    set_clock(-1)
    assert clock.now() - begin == pytest.approx(HOURS, abs=60)


def test_a_run_on_a_store_under_another_clock(
    tmp_path: Path, set_clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"memory://{tmp_path.name}/run"
    monkeypatch.setattr(lease, "_PAUSE_S", 0.1)
    for first, last, hours in ((0, 20, 0.0), (20, 40, -2.0)):
        set_clock(hours)
        with RunFolder(url).owned():
            _train(url, first, last)
    for name in (run := Folder.at(url)).names():
        if "tfevents" in name:
            (tmp_path / name).write_bytes(run.read(name))
    fsspec.filesystem("memory").store.clear()
    assert [point.step for point in _board(tmp_path).Scalars("loss/kl")] == list(range(1, 41))


def test_scores_follow_one_another(tmp_path: Path, set_clock: Callable[[float], None]) -> None:
    for step, hours in ((1, 0.0), (2, -2.0), (3, -2.0)):
        set_clock(hours)
        name, content = scalars_file(Folder.at(tmp_path), {"score/is": float(step)}, step)
        assert not (tmp_path / name).exists()
        (tmp_path / name).write_bytes(content)
    names = sorted(path.name for path in tmp_path.iterdir())
    steps = [_board(tmp_path / name).Scalars("score/is")[0].step for name in names]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, bytes(100)], ids=["cut short", "garbage", "zeros"])
def test_a_damaged_file_is_followed_all_the_same(
    tmp_path: Path, set_clock: Callable[[float], None], damage: bytes
) -> None:
    _train(tmp_path, 0, 2)
    (file,) = tmp_path.glob("events.*")
    file.write_bytes(file.read_bytes()[:-30] + damage)
    set_clock(-2)
    clock = Clock(Folder.at(tmp_path))
    assert clock.file_name() > file.name
    assert clock.now() >= float(file.name.split(".")[3])


def test_an_entry_that_does_not_fit_leaves_the_file_whole(small_disk: Path) -> None:
    file = EventFile(small_disk, Clock(Folder.at(small_disk)))
    file.add_scalars({"curve": 1.0}, 1)
    with pytest.raises(OSError, match="No space left"):
        file.add_image("picture", bytes(70_000), (1, 1), 2)
    file.add_scalars({"curve": 3.0}, 3)
    assert [point.step for point in _board(small_disk).Scalars("curve")] == [1, 3]
