"""Locks with and without flock: one process at a time, and none that has ended keeps the others out."""

from __future__ import annotations

import errno
import fcntl
import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from storage.one_at_a_time import counts_inside

from stackgan_dist.storage import durable, locks
from stackgan_dist.storage.locks import NoLocksError, holding, is_held, open_alone, share, try_lock

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["flock", "markers"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "markers":
        monkeypatch.setattr(fcntl, "flock", _no_flock)
        monkeypatch.setattr(locks, "_TOUCH_S", 0.1)
        monkeypatch.setattr(locks, "_SILENT_S", 1.5)
    return str(request.param)


def _no_flock(file: object, operation: int) -> None:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def test_a_file_is_open_for_one_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    assert not is_held(path)
    first = open_alone(path)
    assert first is not None
    assert open_alone(path) is None
    assert is_held(path)
    time.sleep(2 if kind == "markers" else 0)  # its owner lives, however long it says nothing
    assert is_held(path)
    assert open_alone(path) is None
    first.write(b"content")
    first.close()
    assert not is_held(path)
    with open_alone(path) as again:  # type: ignore[union-attr]
        assert again.read() == b"content"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def _hold(path: Path, ready: object) -> None:
    file = open_alone(path)
    assert file is not None
    ready.set()  # type: ignore[attr-defined]
    time.sleep(600)


def test_a_killed_process_keeps_nobody_out(tmp_path: Path, kind: str) -> None:
    path, ready = tmp_path / "file", FORK.Event()
    process = FORK.Process(target=_hold, args=(path, ready))
    process.start()
    assert ready.wait(30)
    assert open_alone(path) is None
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    deadline = time.monotonic() + 30
    while (file := open_alone(path)) is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    file.close()


def test_a_moment_belongs_to_one(tmp_path: Path, kind: str) -> None:
    most = counts_inside(lambda: holding(tmp_path / ".lock"), threads=4, turns=5, stay_s=0.002)
    assert most == [1] * 20


def test_a_fault_inside_a_moment_ends_it(tmp_path: Path, kind: str) -> None:
    with pytest.raises(ValueError, match="fault"), holding(tmp_path / ".lock"):
        raise ValueError("fault")
    with holding(tmp_path / ".lock"):
        pass


def test_a_child_does_not_end_its_parent_s_lock(tmp_path: Path, kind: str) -> None:
    file = open_alone(tmp_path / "file")
    assert file is not None
    child = FORK.Process(target=file.close)
    child.start()
    child.join()
    assert is_held(tmp_path / "file")
    file.close()


def test_what_is_shared_is_held(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "file").chmod(0o444)
    with (tmp_path / "file").open("rb") as one, (tmp_path / "file").open("rb") as other:
        share(one)
        share(other)
        assert is_held(tmp_path / "file")
    assert not is_held(tmp_path / "file")


@pytest.mark.parametrize("fault", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL])
def test_a_file_system_without_locks_is_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: int
) -> None:
    def fail(file: object, operation: int) -> None:
        raise OSError(fault, os.strerror(fault))

    monkeypatch.setattr(fcntl, "flock", fail)
    monkeypatch.setattr(durable, "_told", set())
    with (tmp_path / "file").open("w") as file:
        for _ in range(3):
            with pytest.raises(NoLocksError):
                try_lock(file)
    assert capsys.readouterr().err.count("has no locks (flock)") == 1


def test_other_faults_are_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: object, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", fail)
    with (tmp_path / "file").open("w") as file, pytest.raises(OSError, match="Input/output error"):
        try_lock(file)


def test_a_file_that_others_remove_is_made_again(tmp_path: Path, kind: str) -> None:
    path, ended = tmp_path / "file", threading.Event()

    def remove() -> None:
        while not ended.is_set():
            path.unlink(missing_ok=True)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        for _ in range(2000):
            file = open_alone(path)  # or None, where it was removed before it could be locked
            if file is not None:
                file.close()
    finally:
        ended.set()
        thread.join()
