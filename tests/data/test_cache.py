"""The shard cache against a store that fails, lies, stalls and is asked by several processes at once."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, ClassVar

import fsspec
import pytest

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.cache_folder import CacheFolder, Unavailable
from stackgan_dist.data.index import Index, Shard
from stackgan_dist.errors import UserError
from stackgan_dist.storage import retry, stream

SHARD_BYTES = 1000
COUNT = 4
FORK = multiprocessing.get_context("fork")


class Store(fsspec.AbstractFileSystem):
    """An object store: files below a folder, a log of all requests, and faults on order."""

    protocol = "store"
    cachable = False
    fault: ClassVar[Callable[[int, bytes], bytes] | None] = None
    """Given the number of the request in this process and the right answer; returns another one, or raises."""
    requests: ClassVar[int] = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        file = Path(path)
        with (file.parent / "log").open("a") as log:
            log.write(f"{file.name} {start} {end}\n")
        answer = file.read_bytes()[start:end]
        number, type(self).requests = type(self).requests, type(self).requests + 1
        return answer if Store.fault is None else Store.fault(number, answer)


fsspec.register_implementation("store", Store, clobber=True)


def _content(number: int) -> bytes:
    return hashlib.sha256(bytes([number])).digest() * (SHARD_BYTES // 32 + 1)


class Remote:
    """A data set on the store, and what has been asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.cached = folder / "node" / "shards"
        self.folder.mkdir()
        shards = []
        for number in range(COUNT):
            data = _content(number)[:SHARD_BYTES]
            (self.folder / f"shard-{number}.tar").write_bytes(data)
            shards.append(Shard(f"shard-{number}.tar", len(data), hashlib.sha256(data).hexdigest(), 1))
        self.index = Index("x", "train", 76, "ngrams", 256, 1, (), COUNT, tuple(shards))

    def cache(self, limit_bytes: int = 10**6) -> ShardCache:
        return ShardCache(f"store://{self.folder}", self.index, self.cached, limit_bytes)

    def log(self) -> list[str]:
        log = self.folder / "log"
        return log.read_text().splitlines() if log.exists() else []

    def kept(self) -> list[int]:
        names = {f"{shard.sha256}.tar": number for number, shard in enumerate(self.index.shards)}
        return sorted(names[path.name] for path in self.cached.glob("*.tar"))


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """No time is lost between attempts; the pauses asked for are listed."""
    asked: list[float] = []
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=time.monotonic, sleep=asked.append))
    monkeypatch.setattr(Store, "fault", None)
    monkeypatch.setattr(Store, "requests", 0)
    return asked


def _place(remote: Remote, number: int) -> BinaryIO:
    """The lock on a shard that is being fetched."""
    part = CacheFolder(remote.cached, 10**9).place(remote.index.shards[number], urgent=True)
    assert not isinstance(part, Unavailable)
    return part


def _read(cache: ShardCache, number: int) -> bytes:
    with cache.open(number) as file:
        return file.read()


def test_a_shard_is_fetched_once(remote: Remote) -> None:
    first, second = remote.cache(), remote.cache()
    for cache in (first, first, second):
        assert _read(cache, 1) == _content(1)[:SHARD_BYTES]
    first.fetch_ahead(1)
    assert remote.log() == ["shard-1.tar 0 1000"]


def test_what_was_fetched_ahead_is_not_fetched_again(remote: Remote) -> None:
    cache = remote.cache()
    cache.fetch_ahead(2)
    assert remote.kept() == [2]
    cache.open(2).close()
    assert len(remote.log()) == 1


def test_large_shards_come_in_blocks(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_BLOCK_BYTES", 400)
    assert _read(remote.cache(), 0) == _content(0)[:SHARD_BYTES]
    assert remote.log() == ["shard-0.tar 0 400", "shard-0.tar 400 800", "shard-0.tar 800 1000"]


def test_the_cache_is_bounded_and_the_longest_unused_goes_first(remote: Remote) -> None:
    cache = remote.cache(limit_bytes=2 * SHARD_BYTES + 500)
    for use, number in enumerate([0, 1, 0, 2, 3]):
        cache.open(number).close()
        os.utime(remote.cached / f"{remote.index.shards[number].sha256}.tar", (use, use))
        assert sum(path.stat().st_size for path in remote.cached.glob("*.tar")) <= 2 * SHARD_BYTES + 500
        if number == 2:
            assert remote.kept() == [0, 2]  # 1 has not been used for longest, though 0 is older
    assert remote.kept() == [2, 3]


def test_use_keeps_a_shard(remote: Remote) -> None:
    cache = remote.cache()
    cache.open(0).close()
    path = remote.cached / f"{remote.index.shards[0].sha256}.tar"
    os.utime(path, (1, 1))
    cache.open(0).close()
    assert path.stat().st_mtime > 1


def test_an_evicted_shard_stays_readable_where_it_is_open(remote: Remote) -> None:
    cache = remote.cache(limit_bytes=SHARD_BYTES)
    with cache.open(0) as file:
        cache.open(1).close()
        assert remote.kept() == [1]
        assert file.read() == _content(0)[:SHARD_BYTES]


def test_a_shard_larger_than_the_bound_is_still_served(remote: Remote) -> None:
    assert _read(remote.cache(limit_bytes=10), 3) == _content(3)[:SHARD_BYTES]


def test_an_altered_object_is_refused_and_leaves_nothing(remote: Remote) -> None:
    path = remote.folder / "shard-1.tar"
    good = path.read_bytes()
    path.write_bytes(good[:-1] + b"?")
    expected = remote.index.shards[1].sha256[:16]
    for attempt in ("open", "fetch_ahead"):
        with pytest.raises(UserError, match=rf"shard-1\.tar has sha256 .*, the index says {expected}.*pack the set"):
            getattr(remote.cache(), attempt)(1)
    assert not list(remote.cached.glob("*.tar"))
    assert not list(remote.cached.glob("*.part"))
    path.write_bytes(good)
    assert _read(remote.cache(), 1) == good


def test_a_truncated_object_is_refused(remote: Remote) -> None:
    path = remote.folder / "shard-1.tar"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(UserError, match=r"shard-1\.tar after 8 attempts.*the store sent 700 of 1000 bytes"):
        remote.cache().open(1)
    assert remote.kept() == []


def test_a_missing_object_is_reported_soon(remote: Remote, pauses: list[float]) -> None:
    (remote.folder / "shard-1.tar").unlink()
    with pytest.raises(
        UserError, match=r"cannot read store://.*shard-1\.tar.*after 3 attempts.*the set may not be complete"
    ):
        remote.cache().open(1)
    assert len(pauses) == 2


def test_transient_errors_are_retried_with_growing_pauses(remote: Remote, pauses: list[float]) -> None:
    faults = [
        TimeoutError("slow"),
        ConnectionResetError("reset"),
        OSError(5, "503"),
        RuntimeError("of the client's own"),
    ]

    def fail(number: int, answer: bytes) -> bytes:
        if number < len(faults):
            raise faults[number]
        return answer

    Store.fault = staticmethod(fail)  # type: ignore[assignment]
    assert _read(remote.cache(), 0) == _content(0)[:SHARD_BYTES]
    assert len(pauses) == len(faults)
    for attempt, pause in enumerate(pauses, 1):
        assert 0.1 * 2**attempt <= pause <= 0.2 * 2**attempt


def test_a_body_that_breaks_off_is_continued_there(remote: Remote) -> None:
    Store.fault = staticmethod(lambda number, answer: answer[:300] if number < 2 else answer)  # type: ignore[assignment]
    assert _read(remote.cache(), 0) == _content(0)[:SHARD_BYTES]
    assert remote.log() == ["shard-0.tar 0 1000", "shard-0.tar 300 1000", "shard-0.tar 600 1000"]


def test_an_error_that_stays_stops_with_the_last_fault(remote: Remote, pauses: list[float]) -> None:
    def fail(number: int, answer: bytes) -> bytes:
        raise ConnectionResetError(f"reset number {number}")

    Store.fault = staticmethod(fail)  # type: ignore[assignment]
    with pytest.raises(UserError, match=r"shard-2\.tar after 8 attempts.*ConnectionResetError: reset number 7"):
        remote.cache().open(2)
    assert len(pauses) == 7
    assert sum(pauses) < 60


def test_processes_of_a_node_fetch_a_shard_once(remote: Remote) -> None:
    def slow(number: int, answer: bytes) -> bytes:
        signal.sigtimedwait([], 0.3)  # sleep() is patched
        return answer

    Store.fault = staticmethod(slow)  # type: ignore[assignment]
    start = FORK.Barrier(4)

    def read_all() -> None:
        start.wait()
        cache = remote.cache()
        good = all(_read(cache, number) == _content(number)[:SHARD_BYTES] for number in range(2))
        os._exit(0 if good else 1)

    processes = [FORK.Process(target=read_all) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert sorted(remote.log()) == ["shard-0.tar 0 1000", "shard-1.tar 0 1000"]


def test_fetching_ahead_does_not_wait_for_another_process(remote: Remote) -> None:
    cache = remote.cache()
    with _place(remote, 0):
        cache.fetch_ahead(0)
    assert remote.log() == []


def test_killed_in_mid_fetch_and_started_again(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_BLOCK_BYTES", 400)

    def stall(number: int, answer: bytes) -> bytes:
        if number == 1:
            signal.pause()
        return answer

    Store.fault = staticmethod(stall)  # type: ignore[assignment]
    process = FORK.Process(target=lambda: remote.cache().open(0))
    process.start()
    deadline = time.monotonic() + 20
    while len(remote.log()) < 2 and time.monotonic() < deadline:
        signal.sigtimedwait([], 0.01)
    process.kill()
    process.join()
    assert remote.kept() == []  # nothing half fetched has the name of a shard
    assert len(list(remote.cached.glob("*.part"))) == 1
    Store.fault = None
    before = len(remote.log())
    assert _read(remote.cache(), 0) == _content(0)[:SHARD_BYTES]
    assert remote.log()[before:] == ["shard-0.tar 400 800", "shard-0.tar 800 1000"]  # what had come is not asked again
    assert not list(remote.cached.glob("*.part"))


def test_a_folder_that_cannot_be_written_is_a_user_error(remote: Remote) -> None:
    remote.cached.parent.write_text("a file where the cache is to be")
    for attempt in ("open", "fetch_ahead"):
        with pytest.raises(UserError, match=r"cannot keep shard-0\.tar .* in the cache .*--data\.cache"):
            getattr(remote.cache(), attempt)(0)


def test_a_full_disk_is_a_user_error(remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(UserError, match=r"cannot keep shard-0\.tar \(1000 bytes\).*No space left.*--data\.cache-gb"):
        remote.cache().open(0)
    assert remote.kept() == []


def test_local_shards_are_read_where_they_lie(remote: Remote) -> None:
    for url in (str(remote.folder), remote.folder.as_uri()):
        cache = ShardCache(url, remote.index, remote.cached, 10**6)
        cache.fetch_ahead(0)
        assert _read(cache, 0) == _content(0)[:SHARD_BYTES]
    assert not remote.cached.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), r"cannot open .*shard-0\.tar.*the index lists it, pack the set again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "has 999 bytes, the index says 1000"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"), r"shard-0\.tar has sha256"),
    ],
)
def test_damaged_local_shards_are_refused(remote: Remote, damage: Callable[[Path], None], message: str) -> None:
    damage(remote.folder / "shard-0.tar")
    with pytest.raises(UserError, match=message):
        ShardCache(str(remote.folder), remote.index, remote.cached, 10**6).open(0)


def test_fetches_under_way_are_inside_the_bound(remote: Remote) -> None:
    """Room for two: the third waits until one of the two has come."""
    held = [_place(remote, number) for number in range(2)]
    folder = CacheFolder(remote.cached, 2 * SHARD_BYTES + 500)
    assert folder.place(remote.index.shards[2], urgent=True) is Unavailable.BUSY
    assert folder.place(remote.index.shards[2], urgent=False) is Unavailable.FULL
    assert sorted(path.name for path in remote.cached.glob("*.part")) == sorted(
        f"{shard.sha256}.{SHARD_BYTES}.part" for shard in remote.index.shards[:2]
    )
    held[0].close()  # killed: what it has fetched is kept, unless the room is needed
    place = folder.place(remote.index.shards[2], urgent=True)
    assert not isinstance(place, Unavailable)
    assert len(list(remote.cached.glob("*.part"))) == 2


def test_fetching_ahead_removes_nothing_that_is_wanted_sooner(remote: Remote) -> None:
    cache = remote.cache(limit_bytes=2 * SHARD_BYTES)
    cache.open(0).close()
    with cache.open(1):
        cache.fetch_ahead(2, keep=[0, 2])
        assert remote.kept() == [0, 1]  # 0 is wanted sooner, 1 is in use
        cache.fetch_ahead(2)
        assert remote.kept() == [1, 2]
        assert not list(remote.cached.glob("*.part"))


def test_what_is_in_use_goes_last_and_is_asked_back(remote: Remote) -> None:
    cache, other = remote.cache(limit_bytes=2 * SHARD_BYTES), remote.cache(limit_bytes=2 * SHARD_BYTES)
    with other.open(0) as used:
        cache.open(1).close()
        cache.open(2).close()
        assert remote.kept() == [0, 2]
        with cache.open(2), cache.open(3):
            assert other.wants_back(used)
            assert used.read() == _content(0)[:SHARD_BYTES]


def test_a_shard_that_was_cut_short_in_the_cache_is_fetched_again(remote: Remote) -> None:
    cache = remote.cache()
    cache.open(0).close()
    path = remote.cached / f"{remote.index.shards[0].sha256}.tar"
    path.write_bytes(path.read_bytes()[:10])
    assert _read(cache, 0) == _content(0)[:SHARD_BYTES]


def test_a_part_that_holds_something_else_is_fetched_anew(remote: Remote) -> None:
    for size in (SHARD_BYTES // 2, SHARD_BYTES, SHARD_BYTES + 1):
        remote.cached.mkdir(parents=True, exist_ok=True)
        shard = remote.index.shards[0]
        (remote.cached / f"{shard.sha256}.{shard.bytes}.part").write_bytes(b"x" * size)
        assert _read(remote.cache(), 0) == _content(0)[:SHARD_BYTES]
        (remote.cached / f"{shard.sha256}.tar").unlink()


def test_a_disk_that_fills_up_makes_the_window_smaller(
    remote: Remote, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A real one, of some 40 blocks, on which the cache is allowed a hundred times as much."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "none", disk], check=False).returncode:
        pytest.skip("a file system can only be mounted by root")
    try:
        size = 50_000
        shards = []
        for number in range(COUNT):
            data = (_content(number) * (size // SHARD_BYTES))[:size]
            (remote.folder / f"shard-{number}.tar").write_bytes(data)
            shards.append(Shard(f"shard-{number}.tar", size, hashlib.sha256(data).hexdigest(), 1))
        remote.index = dataclasses.replace(remote.index, shards=tuple(shards))
        remote.cached = disk / "shards"
        cache = remote.cache(limit_bytes=100 * size)
        for number in [*range(COUNT), *range(COUNT)]:
            assert len(_read(cache, number)) == size
        assert len(remote.kept()) == 2 or len(remote.kept()) == 3
        assert capfd.readouterr().err.count("is full; going on with the") >= 1
        with cache.open(0), cache.open(1), cache.open(2):
            cache.fetch_ahead(3)  # no room, no error
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_what_others_keep_in_the_folder_neither_counts_nor_goes(remote: Remote) -> None:
    remote.cached.mkdir(parents=True)
    theirs = ("backup-2024.tar", "photos.tar", "movie.iso.123.part", "ubuntu.iso.part", f"{'a' * 64}.tar.gz", "x.tar")
    for name in theirs:
        (remote.cached / name).write_bytes(b"somebody's" * 1000)
        os.utime(remote.cached / name, (0, 0))
    cache = remote.cache(limit_bytes=2 * SHARD_BYTES)
    for number in range(COUNT):
        assert _read(cache, number) == _content(number)[:SHARD_BYTES]
    ours = {f"{shard.sha256}.tar" for shard in remote.index.shards}
    kept = {path.name for path in remote.cached.iterdir()}
    assert kept >= set(theirs)
    assert len(kept & ours) == 2


def test_a_local_shard_that_is_changed_during_a_run_is_noticed(remote: Remote) -> None:
    cache = ShardCache(str(remote.folder), remote.index, remote.cached, 10**6)
    for _ in range(2):
        assert _read(cache, 0) == _content(0)[:SHARD_BYTES]
    file = remote.folder / "shard-0.tar"
    other = file.with_name("new")
    other.write_bytes(_content(1)[:SHARD_BYTES])  # of the same size, as tars often are
    other.replace(file)
    with pytest.raises(UserError, match=r"shard-0.tar has sha256 .*: its content was altered or damaged"):
        cache.open(0)
