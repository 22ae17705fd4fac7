"""File systems that know no chmod, no fsync of folders and no locks: everything works, and says so once."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from stackgan_dist.cli.doors import command_main
from stackgan_dist.config import DataConfig
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study.votes import Votes
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.storage import durable, lease, locks
from stackgan_dist.storage.files import write_bytes


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CIFS, FUSE on a bucket or Lustre without -o flock."""
    fsync, lockf = os.fsync, fcntl.lockf

    def refuse(fault: int) -> Callable[..., None]:
        def call(*_: object, **__: object) -> None:
            raise OSError(fault, os.strerror(fault))

        return call

    def sync_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    def lock_memory(descriptor: Any, *how: int) -> None:
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        if not str(Path(f"/proc/self/fd/{number}").readlink()).startswith("/memfd:"):  # which is on none of them
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        lockf(number, *how)

    monkeypatch.setattr(os, "chmod", refuse(errno.EPERM))
    monkeypatch.setattr(os, "fsync", sync_files)
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOSYS))
    monkeypatch.setattr(fcntl, "lockf", lock_memory)
    monkeypatch.setattr(durable, "_told", set())
    monkeypatch.setattr(locks, "_TOUCH_S", 0.1)
    monkeypatch.setattr(locks, "_SILENT_S", 1.0)
    monkeypatch.setattr(lease, "_PAUSE_S", 0.1)


def _assert_said_once(text: str, *what: str) -> None:
    assert "Traceback" not in text
    for each in what:
        assert text.count(f"has no {each}") == 1, text


def test_a_training(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = ["--data.url", packed, "--data.workers", 0, "--training.batch-size", 8, "--training.epochs", 1]
    arguments += ["--model.generator-width", 8, "--model.discriminator-width", 8]
    arguments += ["--run.folder", tmp_path, "--run.name", "run"]
    monkeypatch.setattr("sys.argv", ["train", "--preset", "demo-stage1", *map(str, arguments)])
    command_main("train")()
    assert (run / "DONE").exists()
    assert list((run / "checkpoints").glob("*/commit.json"))
    assert not (run / ".lock").exists()
    _assert_said_once(capsys.readouterr().err, "syncing of this (fsync)", "locks (flock)")


def test_a_run_has_one_owner(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path).owned(),
        pytest.raises(UserError, match=r"is in use by another start of this run \(process"),
        RunFolder(tmp_path).owned(patience_s=1),
    ):
        pass


def test_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["pack", "painted", "--out", tmp_path / "set", "--sizes", 76, "--limit", 6, "--workers", 1]
    monkeypatch.setattr("sys.argv", [str(word) for word in arguments])
    command_main("pack")()
    _assert_said_once(capsys.readouterr().err, "syncing of this (fsync)")
    assert len(open_packed(DataConfig(url=str(tmp_path / "set")), 64).captions()) == 6


def test_a_cache(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Four readers of a set on a store, with room for a part of it."""
    index = open_packed(DataConfig(url=str(packed)), 64).index
    url = f"memory://{tmp_path.name}"
    for shard in index.shards:
        write_bytes(f"{url}/{shard.name}", (packed / "train" / "76" / shard.name).read_bytes())
    limit_bytes = 3 * max(shard.bytes for shard in index.shards)
    wrong: list[object] = []

    def read(first: int) -> None:
        try:
            cache = ShardCache(url, index, tmp_path / "cache", limit_bytes)
            for turn in range(2 * len(index.shards)):
                number = (first + turn) % len(index.shards)
                cache.fetch_ahead((number + 1) % len(index.shards))
                with cache.open(number) as file:
                    if file.read() != (packed / "train" / "76" / index.shards[number].name).read_bytes():
                        wrong.append(number)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=read, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    fsspec.filesystem("memory").store.clear()
    assert wrong == []
    left = {path.suffix for path in (tmp_path / "cache").iterdir()} - {".tar"}
    assert left <= {"", ".part"}  # no marker
    _assert_said_once(capsys.readouterr().err, "locks (flock)")


def test_votes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "100% of votes?.sqlite"
    votes = Votes(file, "digest")
    for number in range(3):
        link = votes.add_rater()
        with votes.transaction():
            votes.add(number, 0, 7, [[1], [0], [2]])
        assert votes.rater(link) == number
        reader = Votes(file, "digest")  # a report, while they vote
        assert len(reader.all()) == number + 1
        reader.close()
    votes.close()
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    _assert_said_once(capsys.readouterr().err, "locks (flock)")


def test_a_server_that_was_killed_keeps_no_vote_out(tmp_path: Path) -> None:
    file = tmp_path / "votes.sqlite"
    Votes(file, "digest").close()
    (tmp_path / "votes.sqlite.lock").mkdir()
    votes = Votes(file, "digest")
    votes.add_rater()
    votes.close()
