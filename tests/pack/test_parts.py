"""Packing in pieces: by parts, after being killed, by shards of a size. The bytes are always the same."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.importable import options_of
from stackgan_dist.pack import split
from stackgan_dist.pack.__main__ import _part
from stackgan_dist.pack.balance import BALANCE_NAME
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.job import Part
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.reshard import reshard
from stackgan_dist.pack.shard_writer import Packed, Task, pack_shard
from stackgan_dist.storage.folder import Folder

FEW = {"pictures": 240}
"""Listing thousands takes longer than packing twenty."""

RECIPE = Recipe("painted", "painted", "ngrams", sizes=(16, 8), splits=("train",), samples_per_shard=5, options=FEW)
PICTURES = 22  # five shards


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _shards(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in _files(folder).items() if name != BALANCE_NAME}


def _pack(out: Path, recipe: Recipe = RECIPE, **options: object) -> None:
    given = {"root": None, "workers": 1, "limit": PICTURES, **options}
    pack(recipe, out=str(out), **given)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pack without processes, which test_packing.py has: here it is about what is done and left."""

    def run_tasks(work: object, tasks: list[Task], *_: object) -> object:
        for number, task in enumerate(tasks):
            yield number, pack_shard(task)

    monkeypatch.setattr(split, "run_tasks", run_tasks)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    _pack(tmp_path / "whole")
    return _files(tmp_path / "whole")


def test_any_parts_in_any_order_make_the_same_bytes(
    whole: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(whole) == 2 * (5 + 1) + 1
    out = tmp_path / "out"
    for number in (2, 0, 3):
        _pack(out, part=Part(number, 4))
        assert not list(out.rglob("index.json"))
    assert "1 of 5 shards are left to other parts; no index yet" in capsys.readouterr().out
    _pack(out, part=Part(1, 4))
    assert "painted train is complete: 22 pictures" in capsys.readouterr().out
    assert _files(out) == whole
    _pack(out, part=Part(0, 4))
    assert "already packed" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"packed again \(--overwrite\).*without --part"):
        _pack(out, part=Part(0, 4), overwrite=True)


def test_two_parts_that_finish_at_the_same_time_both_succeed(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever one has found there the other may have written or removed a moment later."""
    out = tmp_path / "out"
    index_names = [out / "train" / size / "index.json" for size in ("8", "16")]
    write, remove, rm = Folder.write, Folder.remove, shutil.rmtree
    turns = {"other part": 0, "removals": 0}

    def written(folder: Folder, name: str, data: bytes) -> None:
        write(folder, name, data)
        if name == "index.json" and not turns["other part"]:  # this part has read the receipts
            turns["other part"] += 1
            for path in index_names:
                path.write_bytes(whole[str(path.relative_to(out))])

    def removed(folder: Folder, name: str) -> None:
        assert name != "index.json"
        remove(folder, name)

    def removed_by_both(path: object, *arguments: object, **options: object) -> None:
        if turns["removals"] % 2 == 0:
            rm(path)  # the other one is quicker
        turns["removals"] += 1
        rm(path, *arguments, **options)

    _pack(out, part=Part(0, 2))
    monkeypatch.setattr(Folder, "write", written)
    monkeypatch.setattr(Folder, "remove", removed)
    monkeypatch.setattr(shutil, "rmtree", removed_by_both)
    _pack(out, part=Part(1, 2))
    assert turns["other part"] == 1
    assert turns["removals"] >= 2
    assert _files(out) == whole


def test_what_was_finished_is_not_done_again(
    whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def dies(work: object, tasks: list[Task], *_: object) -> object:
        for number, task in enumerate(tasks):
            if number == 3:
                raise KeyboardInterrupt
            done.append(task.name)
            yield number, pack_shard(task)

    with monkeypatch.context() as patch:
        patch.setattr(split, "run_tasks", dies)
        with pytest.raises(KeyboardInterrupt):
            _pack(tmp_path / "out")
        assert not list((tmp_path / "out").rglob("index.json"))
        # a shard that was damaged meanwhile, and a receipt that was cut short, do not count
        first, second, _ = done
        (tmp_path / "out/train/8" / first).write_bytes(b"damaged")
        (tmp_path / "out/train/16/receipts" / f"{second}.json").write_text('{"identity": ')
        done.clear()
        patch.setattr(split, "run_tasks", lambda work, tasks, *_: _recording(tasks, done))
        _pack(tmp_path / "out")  # in one piece, or in any number of parts
    assert done == [f"{first} (8,)", f"{second} (16,)", "shard-000003.tar (16, 8)", "shard-000004.tar (16, 8)"]
    assert "1 of 5 shards are there already" in capsys.readouterr().out
    assert _files(tmp_path / "out") == whole

    # what was begun for another data set does not count either
    with monkeypatch.context() as patch:
        patch.setattr(split, "run_tasks", dies)
        with pytest.raises(KeyboardInterrupt):
            _pack(tmp_path / "other", dataclasses.replace(RECIPE, seed=7))
    _pack(tmp_path / "other")
    assert _files(tmp_path / "other") == whole


def _recording(tasks: list[Task], done: list[str]) -> object:
    for number, task in enumerate(tasks):
        done.append(f"{task.name} {tuple(size for size, _ in task.folders)}")
        yield number, pack_shard(task)


def test_shards_with_rejects_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fails = [True]

    def rejecting(task: Task) -> Packed:
        if not fails[0]:
            return pack_shard(task)
        found = {"key": task.records[0].key, "id": "", "reason": "broken"}
        return dataclasses.replace(pack_shard(dataclasses.replace(task, records=task.records[1:])), rejected=(found,))

    def run_tasks(work: object, tasks: list[Task], *_: object) -> object:
        for number, task in enumerate(tasks):
            yield number, rejecting(task)

    monkeypatch.setattr(split, "run_tasks", run_tasks)
    # each part alone stays below the bound, all together do not
    for number in range(5):
        with pytest.raises(UserError, match="5 of 22") if number == 4 else _nothing():
            _pack(tmp_path / "out", part=Part(number, 5), max_rejects=0.2)
    assert not list((tmp_path / "out").rglob("index.json"))
    assert len((tmp_path / "out/train/rejected.jsonl").read_text().splitlines()) == 5
    fails[0] = False

    # while one part mends its shard, another one does not finish the set with the old one
    def meanwhile(work: object, tasks: list[Task], *arguments: object) -> object:
        monkeypatch.setattr(split, "run_tasks", run_tasks)
        _pack(tmp_path / "out", part=Part(0, 5), max_rejects=0.2)
        assert not list((tmp_path / "out").rglob("index.json"))
        return run_tasks(work, tasks)

    monkeypatch.setattr(split, "run_tasks", meanwhile)
    _pack(tmp_path / "out", part=Part(1, 5), max_rejects=0.2)
    index = load_index(str(tmp_path / "out/train/16"))
    for shard in index.shards:
        data = (tmp_path / "out/train/16" / shard.name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == shard.sha256
    assert len((tmp_path / "out/train/rejected.jsonl").read_text().splitlines()) == 3

    _pack(tmp_path / "out", overwrite=True)
    assert load_index(str(tmp_path / "out/train/16")).samples == PICTURES
    assert not (tmp_path / "out/train/rejected.jsonl").exists()


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


GROUP = {"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
"""What torchrun says to both of two ranks."""


def test_under_torchrun_every_rank_is_a_part(whole: dict[str, bytes], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stackgan_dist.pack", "painted", "--out", str(tmp_path / "out"), "--sizes", "16"]
    command += [
        "8",
        "--splits",
        "train",
        "--samples-per-shard",
        "5",
        "--limit",
        str(PICTURES),
        "--options",
        "pictures=240",
    ]
    ranks = [subprocess.Popen(command, env={**os.environ, "RANK": rank, **GROUP}) for rank in ("0", "1")]
    assert [rank.wait(300) for rank in ranks] == [0, 0]
    ours = {name: data for name, data in _files(tmp_path / "out").items() if not name.endswith("index.json")}
    assert ours == {name: data for name, data in whole.items() if not name.endswith("index.json")}
    index, reference = (json.loads(files["train/16/index.json"]) for files in (_files(tmp_path / "out"), whole))
    assert {**index, "recipe": None} == {**reference, "recipe": None}  # the front door's recipe has a seed option


def test_shards_of_a_size(tmp_path: Path) -> None:
    big = dataclasses.replace(RECIPE, sizes=(152,), shard_mb=0.1)
    _pack(tmp_path / "out", big)
    shards = load_index(str(tmp_path / "out/train/152")).shards
    assert len(shards) > 2
    assert all(0.06e6 < shard.bytes < 0.14e6 for shard in shards)


def test_resharded_is_as_if_packed_so(whole: dict[str, bytes], tmp_path: Path) -> None:
    _pack(tmp_path / "other", dataclasses.replace(RECIPE, samples_per_shard=9))
    reshard(str(tmp_path / "whole"), str(tmp_path / "by-count"), 9, None, None, 1)
    assert _files(tmp_path / "by-count") == _shards(tmp_path / "other")
    reshard(str(tmp_path / "other/train/16"), str(tmp_path / "back"), None, None, 5, 1)
    assert _files(tmp_path / "back") == {
        name.removeprefix("train/16/"): data for name, data in whole.items() if name.startswith("train/16/")
    }
    with pytest.raises(UserError, match="holds shards already"):
        reshard(str(tmp_path / "other/train/16"), str(tmp_path / "back"), None, 1.0, None, 1)
    with pytest.raises(UserError, match="exactly one"):
        reshard(str(tmp_path / "other"), str(tmp_path / "x"), 4, 1.0, None, 1)
    with pytest.raises(UserError, match="two classes"):
        reshard(str(tmp_path / "other"), str(tmp_path / "x"), 1, None, None, 1)


def test_resharded_into_so_many_shards_as_asked_for(whole: dict[str, bytes], tmp_path: Path) -> None:
    for shards in (7, 9, 11):  # 22 pictures by 3 would make 8 shards of those 9
        reshard(str(tmp_path / "whole/train/16"), str(tmp_path / str(shards)), None, None, shards, 1)
        assert len(load_index(Folder.at(tmp_path / str(shards))).shards) == shards
    with pytest.raises(UserError, match=r"22 pictures, too few for 12 shards, .*; ask for at most 11"):
        reshard(str(tmp_path / "whole/train/16"), str(tmp_path / "12"), None, None, 12, 1)


def test_parts_and_options_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert (_part(None), _part("1/8"), _part("8/8")) == (Part(0, 1), Part(0, 8), Part(7, 8))
    for wrong in ("0/8", "9/8", "8", "-1/2", "a/b"):
        with pytest.raises(UserError, match="--part"):
            _part(wrong)
    words = ("a=true", "a=2014", "a=0.5", "a=x.csv", "a=[1, 2]", "a=")
    assert [options_of([word], "--option")["a"] for word in words] == [
        True, 2014, 0.5, "x.csv", [1, 2], "",
    ]  # fmt: skip
    with pytest.raises(UserError, match="KEY=VALUE"):
        options_of(["partial"], "--option")
