"""One cache of several users: what one has fetched all may read, and what a user may not do there is said in one line.

Each user is a process of another uid, which root alone can start.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import fsspec
import pytest

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.cache_folder import CacheFolder, Unavailable
from stackgan_dist.data.index import Index, Shard
from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import write_bytes

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

FIRST, SECOND, GROUP = 54321, 54322, 54300
SHARD_BYTES = 1000
FORK = multiprocessing.get_context("fork")


class Shared:
    """A data set on a store, and a folder in which all users may make their caches."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cached = folder, folder / "shards"
        self.content = [bytes([number]) * SHARD_BYTES for number in range(3)]
        self.url = f"memory://{folder.name}"
        shards = []
        for number, data in enumerate(self.content):
            write_bytes(f"{self.url}/shard-{number}.tar", data)
            shards.append(Shard(f"shard-{number}.tar", len(data), hashlib.sha256(data).hexdigest(), 1))
        self.index = Index("x", "train", 76, "ngrams", 256, 1, (), len(shards), tuple(shards))

    def read(self, number: int, limit_bytes: int = 10**6) -> Callable[[], bytes]:
        """Reads a shard through the cache."""

        def work() -> bytes:
            with ShardCache(self.url, self.index, self.cached, limit_bytes).open(number) as file:
                return file.read()

        return work

    def leave_a_part(self, number: int) -> Callable[[], None]:
        """Leaves what a killed fetch of a shard does."""

        def work() -> None:
            shard = self.index.shards[number]
            part = CacheFolder(self.cached, 10**6).place(shard, urgent=True)
            assert not isinstance(part, Unavailable)
            part.write(self.content[number][:400])
            part.close()

        return work

    def kept(self) -> set[int]:
        """The shards that lie in the cache."""
        return {number for number, one in enumerate(self.index.shards) if (self.cached / f"{one.sha256}.tar").exists()}


@pytest.fixture
def shared() -> Iterator[Shared]:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own are root's alone
    folder.chmod(0o777)
    yield Shared(folder)
    fsspec.filesystem("memory").store.clear()
    shutil.rmtree(folder)


def _start(uid: int, umask: int, work: Callable[[], object]) -> Connection:
    """A process of this user that sends what `work` returns, or the text of the error that it ends with."""
    ours, theirs = FORK.Pipe()

    def run() -> None:
        os.setgroups([])
        os.setgid(GROUP)
        os.setuid(uid)
        os.umask(umask)
        try:
            theirs.send(work())
        except UserError as error:
            theirs.send(str(error))

    FORK.Process(target=run, daemon=True).start()
    theirs.close()  # so that the end of a process without an answer is seen here
    return ours


def _as(uid: int, work: Callable[[], object], umask: int = 0o022) -> object:
    answer = _start(uid, umask, work)
    assert answer.poll(60)
    return answer.recv()


def test_the_second_user_reads_what_the_first_has_fetched(shared: Shared) -> None:
    assert _as(FIRST, shared.read(0)) == shared.content[0]
    fsspec.filesystem("memory").store.clear()
    assert _as(SECOND, shared.read(0)) == shared.content[0]


def test_a_fetch_that_cannot_be_written_says_so(shared: Shared) -> None:
    assert _as(FIRST, shared.read(0)) == shared.content[0]
    said = _as(SECOND, shared.read(1))
    assert said == (
        f"cannot keep shard-1.tar (1000 bytes) in the cache {shared.cached}: Permission denied; give a folder that you "
        "may write to (--data.cache)"
    )
    assert shared.kept() == {0}


def test_a_shard_that_may_not_be_read_is_no_matter_of_room(shared: Shared) -> None:
    assert _as(FIRST, shared.read(0), umask=0o077) == shared.content[0]
    said = _as(SECOND, shared.read(0))
    assert isinstance(said, str)
    assert "Permission denied; give a folder that you may write to (--data.cache)" in said


def test_what_another_user_is_fetching_is_waited_for(shared: Shared) -> None:
    shard = shared.index.shards[0]
    placed, begun = FORK.Event(), FORK.Event()

    def fetch() -> object:
        folder = CacheFolder(shared.cached, 10**6)
        part = folder.place(shard, urgent=True)
        assert not isinstance(part, Unavailable)
        placed.set()
        assert begun.wait(60)
        part.write(shared.content[0])
        folder.finish(shard)
        part.close()
        return "done"

    def wait() -> object:
        busy = CacheFolder(shared.cached, 10**6).place(shard, urgent=True)
        begun.set()
        return busy, shared.read(0)()

    first = _start(FIRST, 0o022, fetch)
    assert placed.wait(60)
    assert _as(SECOND, wait) == (Unavailable.BUSY, shared.content[0])
    assert first.recv() == "done"


def test_a_group_shares_all_of_it_under_its_umask(shared: Shared) -> None:
    """The second user makes room in the first one's folder, and goes on with what a killed fetch of his has left."""
    limit = 2 * SHARD_BYTES
    for number in (0, 1):
        assert _as(FIRST, shared.read(number, limit), umask=0o002) == shared.content[number]
    _as(FIRST, shared.leave_a_part(2), umask=0o002)
    assert _as(SECOND, shared.read(2, limit), umask=0o002) == shared.content[2]
    assert shared.kept() == {1, 2}


def test_the_rest_of_another_user_s_fetch_is_replaced_where_it_may_be_removed(shared: Shared) -> None:
    shared.cached.mkdir()
    shared.cached.chmod(0o777)
    _as(FIRST, shared.leave_a_part(0))
    assert _as(SECOND, shared.read(0)) == shared.content[0]
    shared.cached.chmod(0o1777)
    _as(FIRST, shared.leave_a_part(1))
    said = _as(SECOND, shared.read(1))
    assert "cannot keep shard-1.tar" in str(said)
    assert "Operation not permitted; give a folder that you may write to (--data.cache)" in str(said)


def test_what_may_not_be_read_makes_no_room(shared: Shared) -> None:
    shared.cached.mkdir()
    shared.cached.chmod(0o777)
    (shared.cached / ".lock").touch(0o644)
    limit = 2 * SHARD_BYTES
    assert _as(FIRST, shared.read(0, limit), umask=0o077) == shared.content[0]
    for number in (1, 2):
        assert _as(SECOND, shared.read(number, limit)) == shared.content[number]
    assert shared.kept() == {0, 2}


@pytest.mark.parametrize("sticky", [False, True], ids=["open", "sticky"])
def test_a_folder_for_all_users_holds_what_none_can_remove(shared: Shared, *, sticky: bool) -> None:
    """As /tmp: anybody may write there, and with the sticky bit none may remove what is another's."""
    shared.cached.mkdir()
    shared.cached.chmod(0o1777 if sticky else 0o777)
    limit = 2 * SHARD_BYTES
    assert _as(FIRST, shared.read(0, limit)) == shared.content[0]
    for number in (1, 2):
        assert _as(SECOND, shared.read(number, limit)) == shared.content[number]
    assert shared.kept() == ({0, 2} if sticky else {1, 2})
