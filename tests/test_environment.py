"""Whose word about ranks is taken, and how many files a process may open."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackgan_dist.cli.doors import front_door
from stackgan_dist.config import DataConfig
from stackgan_dist.data import shard
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.shard import OpenShards
from stackgan_dist.distributed import environment
from stackgan_dist.distributed.environment import ranks_from_environment
from stackgan_dist.errors import EXIT_USER_ERROR
from stackgan_dist.machine import TooManyOpenFilesError

LAUNCHER = {"RANK": "2", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1"}


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in LAUNCHER:
        monkeypatch.delenv(name, raising=False)
    environment._note_missing_launcher.cache_clear()


def test_a_launcher_is_believed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in LAUNCHER.items():
        monkeypatch.setenv(name, value)
    assert ranks_from_environment() == (2, 1, 4)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "given", [("RANK",), ("WORLD_SIZE",), ("RANK", "WORLD_SIZE"), ("RANK", "WORLD_SIZE", "MASTER_ADDR")]
)
def test_variables_of_a_pod_are_not_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: tuple[str, ...]
) -> None:
    for name in given:
        monkeypatch.setenv(name, LAUNCHER[name])
    assert ranks_from_environment() == ranks_from_environment() == (0, 0, 1)
    told = capsys.readouterr().err
    assert told.count("this process works alone") == 1
    assert "torchrun" in told


def test_nothing_is_said_where_nothing_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert ranks_from_environment() == (0, 0, 1)
    assert capsys.readouterr().err == ""


def test_errors_are_told_in_a_pod_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")

    @front_door
    def main() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == EXIT_USER_ERROR
    assert "ulimit -n" in capsys.readouterr().err


@pytest.fixture
def few_files() -> Iterator[int]:
    """A soft limit of 100 open files, which a command may raise to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_command_raises_the_soft_limit(few_files: int) -> None:
    found = []

    @front_door
    def main() -> None:
        found.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    main()
    assert found == [min(few_files, 2**16)]


@pytest.mark.usefixtures("few_files")
def test_what_is_open_stays_below_the_limit(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_packed(DataConfig(url=str(packed)), 64)
    monkeypatch.setattr(shard, "_OTHER_FILES", 97)
    shards = OpenShards(data.index, data.cache(), keep=64)
    _read_all(shards)
    assert len(shards._readers) == 3


@pytest.mark.usefixtures("few_files")
def test_where_others_have_taken_the_files_that_were_left_shards_give_way(packed: Path) -> None:
    data = open_packed(DataConfig(url=str(packed)), 64)
    shards = OpenShards(data.index, data.cache(), keep=64)
    taken: list[int] = []
    try:
        while is_one_left():
            taken.append(os.open(os.devnull, os.O_RDONLY))
        for number in taken[-3:]:
            os.close(number)
        del taken[-3:]
        _read_all(shards)
        assert 1 <= len(shards._readers) <= 3
        shards.close()
        taken += [os.open(os.devnull, os.O_RDONLY) for _ in range(3)]
        with pytest.raises(TooManyOpenFilesError, match="ulimit -n"):
            _read_all(shards)
    finally:
        for number in taken:
            os.close(number)


def is_one_left() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return False
    else:
        return True


def _read_all(shards: OpenShards) -> None:
    for _ in range(2):
        for number in range(len(shards._index.shards)):
            assert shards[number].keys
