"""One owner at a time on an object store, also after one that was killed, and when two take over at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import fsspec
import pytest
from storage.one_at_a_time import counts_inside

from stackgan_dist.errors import UserError
from stackgan_dist.storage import lease
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.lease import leased

RUN = Folder.at("memory://lease/run")
LOCK = ".lock"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Renewals take tenths of seconds; silence is longer than a busy machine may make one."""
    monkeypatch.setattr(lease, "RENEW_S", 0.1)
    monkeypatch.setattr(lease, "SILENT_S", 3.0)
    monkeypatch.setattr(lease, "_PAUSE_S", 0.2)
    yield
    fsspec.filesystem("memory").store.clear()


def _unexpected(owner: str) -> None:
    raise AssertionError(owner)


def test_a_second_owner_waits_and_is_refused_while_the_first_renews() -> None:
    with leased(RUN, LOCK, 5, _unexpected):
        refusal = r"memory://lease/run is in use by another start .*process \d+ on "
        with pytest.raises(UserError, match=refusal), leased(RUN, LOCK, 1.5, _unexpected):
            pass
        assert RUN.exists(LOCK)
    assert not RUN.exists(LOCK)


def test_a_second_owner_follows_when_the_first_ends() -> None:
    entered = threading.Event()

    def second() -> None:
        with leased(RUN, LOCK, 20, _unexpected):
            entered.set()

    thread = threading.Thread(target=second)
    with leased(RUN, LOCK, 5, _unexpected):
        thread.start()
        time.sleep(0.5)
        assert not entered.is_set()
    thread.join(30)
    assert entered.is_set()


def test_an_owner_that_was_killed_is_waited_out() -> None:
    RUN.write(LOCK, b"process 1 on nowhere\n0\n")
    begin = time.monotonic()
    with leased(RUN, LOCK, 20, _unexpected):
        assert time.monotonic() - begin > 3.0
        assert b"nowhere" not in RUN.read(LOCK)


def test_of_two_that_take_over_at_once_one_goes_on() -> None:
    RUN.write(LOCK, b"process 1 on nowhere\n0\n")
    most = counts_inside(lambda: leased(RUN, LOCK, 60, _unexpected), threads=3, turns=1, stay_s=0.5)
    assert most == [1, 1, 1]


def test_an_owner_learns_that_it_was_replaced() -> None:
    lost: list[str] = []
    with leased(RUN, LOCK, 5, lost.append):
        RUN.write(LOCK, b"process 2 on elsewhere\n0\n")
        deadline = time.monotonic() + 30
        while not lost and time.monotonic() < deadline:
            time.sleep(0.05)
    assert lost == ["another start of this run (process 2 on elsewhere)"]
    assert RUN.read(LOCK).startswith(b"process 2")  # it is not the loser's to remove
