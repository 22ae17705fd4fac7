"""Batches that do not come, or come another way: full shared memory, long paths, processes that hang or are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset
from torch.utils.data._utils import signal_handling

from stackgan_dist.data import loader as loader_module
from stackgan_dist.data import shared_memory
from stackgan_dist.data.batch import Batch
from stackgan_dist.data.loader import BatchLoader, batches_under_way, in_time
from stackgan_dist.data.shared_memory import handed_over, received
from stackgan_dist.errors import RankError

BATCH = Batch(*(torch.full((64, 3), float(number)) for number in range(6)))


class Hanging(Dataset[Batch]):
    """One batch, and then none for a while."""

    def __getitem__(self, step: int) -> Batch:
        time.sleep(12 * step)
        return BATCH

    def __len__(self) -> int:
        return 3


class Short(Hanging):
    """All batches at once."""

    def __getitem__(self, step: int) -> Batch:
        return BATCH


class Dying(Hanging):
    """One batch, and then the end of the process."""

    def __getitem__(self, step: int) -> Batch:
        if step:
            time.sleep(1)
            os.kill(os.getpid(), signal.SIGKILL)
        return BATCH


def _loader(dataset: Dataset[Batch]) -> BatchLoader:
    return BatchLoader(dataset, batch_size=None, sampler=range(3), num_workers=1, prefetch_factor=2)  # type: ignore[arg-type]


def test_a_killed_process_is_told_in_a_line() -> None:
    batches = in_time(_loader(Dying()), 30, lambda: False)
    assert isinstance(next(batches), Batch)
    with pytest.raises(RankError, match=r"a loader process is gone .*--data.workers 0"):
        next(batches)


@pytest.fixture
def _as_at_the_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No handler of SIGCHLD: torch has not set its own, as an earlier test of this process may have made it."""
    monkeypatch.setattr(signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("_as_at_the_start")
@pytest.mark.parametrize("used_before", [False, True])
def test_a_death_is_told_only_to_who_waits_for_a_batch(used_before: bool) -> None:
    """Not wherever the rank is just then, as torch's own handler does: that may be amid an exchange with others."""
    if used_before:  # by who reads batches directly, as `DataSet.batches` hands them out
        assert len(list(_loader(Short()))) == 3
    before = signal.getsignal(signal.SIGCHLD)
    assert before == signal.SIG_DFL
    batches = in_time(_loader(Dying()), 30, lambda: False)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == before
    end = time.monotonic() + 3
    while time.monotonic() < end:
        time.sleep(0.01)
    with pytest.raises(RankError, match=r"a loader process is gone"):
        next(batches)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        EOFError(),  # the memory of a batch that it announced was not handed over
        ConnectionResetError("Connection reset by peer"),
        FileNotFoundError("No such file or directory"),
    ],
)
def test_each_way_in_which_torch_tells_a_death_is_understood(error: Exception) -> None:
    with pytest.raises(RankError, match=r"a loader process is gone \(\w.*--data.workers 0"):
        next(in_time(_telling(error), 30, lambda: False))


def test_what_was_raised_in_a_process_is_no_death() -> None:
    error = FileNotFoundError("Caught FileNotFoundError in DataLoader worker process 0.")
    with pytest.raises(FileNotFoundError, match="Caught"):
        next(in_time(_telling(error), 30, lambda: False))


def _telling(error: Exception) -> BatchLoader:
    class Told:
        num_workers = 1

        def __iter__(self) -> Iterator[Batch]:
            raise error
            yield BATCH

    return Told()  # type: ignore[return-value]


def test_a_process_that_hangs_is_waited_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_module, "_LOOK_S", 0.05)
    monkeypatch.setattr(loader_module, "_STOPPING_S", 0.1)
    for timeout_s, is_asked in ((5, False), (60, True)):
        stopping: list[bool] = []  # only once the process runs, whose start is waited for, too
        batches = in_time(_loader(Hanging()), timeout_s, lambda stopping=stopping: bool(stopping))
        next(batches)
        stopping += [True] * is_asked
        begin = time.monotonic()
        with pytest.raises(RankError, match=r"no batch came .* for \d+ s \(/dev/shm has .*--run.timeout-s"):
            next(batches)
        assert time.monotonic() - begin < 30


@pytest.fixture
def _untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_memory, "_noted", False)


@pytest.mark.usefixtures("_untold")
def test_without_room_in_shared_memory_the_bytes_are_sent_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    piece = torch.arange(9, dtype=torch.uint8)
    for _ in range(2):
        assert torch.equal(received(handed_over(piece)), piece)
    told = capsys.readouterr().err
    assert told.count("note on rank") == 1
    assert "No space left on device" in told
    assert "--shm-size" in told
    assert "--data.workers 0" in told


@pytest.mark.usefixtures("_untold")
def test_a_folder_whose_name_is_too_long_for_a_socket_is_avoided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / ("x" * 95)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    piece = torch.arange(9, dtype=torch.uint8)
    sent = handed_over(piece)
    assert not isinstance(sent, torch.Tensor)
    assert torch.equal(received(sent), piece)
    assert "$TMPDIR has" in capsys.readouterr().err


LOAD = """
    from stackgan_dist.config import DataConfig
    from stackgan_dist.data.batch import BatchShape
    from stackgan_dist.data.dataset import open_packed
    from stackgan_dist.data.loader import StepDataset, in_time, make_loader
    from stackgan_dist.data.plan import Plan
    data = open_packed(DataConfig(url={url!r}), 128)
    plan = Plan([shard.samples for shard in data.index.shards], 0, 32)
    shape = BatchShape(128, 1, 4, 1, 4)
    dataset = StepDataset(data.index, plan, data.cache(), range(32), shape, 64)
    for workers in (0, 1):
        loader = make_loader(dataset, 0, 3, workers)
        print([int(batch.images.long().sum()) for batch in in_time(loader, 60, lambda: False)])
"""


@pytest.mark.parametrize("place", ["a small /dev/shm", "a long TMPDIR"])
def test_a_real_loader_where_nothing_can_be_shared(packed: Path, tmp_path: Path, place: str) -> None:
    """A container's shared memory of 1 MB, where a batch takes 1.5; a path of 95 characters and more."""
    command: Sequence[str] = [sys.executable, "-c", textwrap.dedent(LOAD.format(url=str(packed)))]
    environment = dict(os.environ)
    if place == "a small /dev/shm":
        command = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            'mount -t tmpfs -o size=1m tmpfs /dev/shm && exec "$@"',
            "sh",
            *command,
        ]
        if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
            pytest.skip("mounts of one's own need root")
    else:
        (tmp_path / ("x" * 95)).mkdir()
        environment["TMPDIR"] = str(tmp_path / ("x" * 95))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    alone, by_a_process = done.stdout.splitlines()
    assert alone == by_a_process
    assert done.stderr.count("batches go through a pipe") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("local_rank", "free_mb", "said"), [("0", 64, True), ("1", 64, False), ("0", 1024, False)])
def test_too_little_shared_memory_is_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], local_rank: str, free_mb: int, said: bool
) -> None:
    usage = shutil.disk_usage("/")._replace(free=free_mb * 2**20, total=2**30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    shared_memory.note_little_memory(batches_under_way(1) * 13 * 2**20)
    found = capsys.readouterr().err
    assert ("may have 130 MB of batches under way" in found) == said
    assert ("--shm-size" in found) == said
