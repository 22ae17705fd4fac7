"""What is written to a local file system has the modes that the user's umask says, whichever way it was written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from stackgan_dist.cli.doors import command_main
from stackgan_dist.config import DataConfig
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.human_rank.study.votes import Votes
from stackgan_dist.storage.files import write_bytes


@pytest.fixture(params=[0o002, 0o022, 0o077], ids=["002", "022", "077"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def _assert_modes(folder: Path, umask: int) -> None:
    found = list(folder.rglob("*"))
    assert found
    for path in found:
        expected = (0o777 if path.is_dir() else 0o666) & ~umask
        assert stat.S_IMODE(path.stat().st_mode) == expected, path


def _run(monkeypatch: pytest.MonkeyPatch, command: str, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", [command, *map(str, arguments)])
    command_main(command)()


def test_a_packed_set_and_a_run(tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "out" / "set"
    _run(monkeypatch, "pack", "painted", "--out", data, "--sizes", 76, "--limit", 8, "--workers", 1)
    arguments = ["--data.url", data, "--data.workers", 0, "--training.batch-size", 4, "--training.epochs", 1]
    arguments += ["--model.generator-width", 8, "--model.discriminator-width", 8]
    arguments += ["--run.folder", tmp_path / "out", "--run.name", "run"]
    _run(monkeypatch, "train", "--preset", "demo-stage1", *arguments)
    _run(monkeypatch, "generate", "--run", tmp_path / "out" / "run", "--count", 1, "a red bird")
    assert list((tmp_path / "out" / "run" / "checkpoints").glob("*/commit.json"))
    _assert_modes(tmp_path / "out", umask)


def test_a_cache(packed: Path, tmp_path: Path, umask: int) -> None:
    index = open_packed(DataConfig(url=str(packed)), 64).index
    url = f"memory://{tmp_path.name}"
    write_bytes(f"{url}/{index.shards[0].name}", (packed / "train" / "76" / index.shards[0].name).read_bytes())
    ShardCache(url, index, tmp_path / "out" / "cache", 10**9).open(0).close()
    fsspec.filesystem("memory").store.clear()
    _assert_modes(tmp_path / "out", umask)


def test_votes(tmp_path: Path, umask: int) -> None:
    (tmp_path / "out").mkdir()
    votes = Votes(tmp_path / "out" / "votes.sqlite", "digest")
    votes.add_rater()
    _assert_modes(tmp_path / "out", umask)  # the write-ahead log beside it included
    votes.close()
