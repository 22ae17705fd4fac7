"""Packing where other things lie, or where another pack writes: what is not a pack's own is never touched."""

from __future__ import annotations

import dataclasses
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.pack import data_set, job, split
from stackgan_dist.pack.balance import BALANCE_NAME, REJECTED_NAME, _kind
from stackgan_dist.pack.claim import MARK_NAME
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.job import Part
from stackgan_dist.pack.places import LISTING_NAME, check_places
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.shard_writer import Task, pack_shard
from stackgan_dist.storage.files import open_filesystem, write_bytes
from stackgan_dist.storage.folder import Folder

RECIPE = Recipe(
    "painted", "painted", "ngrams", sizes=(8,), splits=("train",), samples_per_shard=5, options={"pictures": 240}
)
OTHER = dataclasses.replace(RECIPE, seed=7)
BOTH = dataclasses.replace(RECIPE, splits=("train", "test"))
INDEX = "train/8/index.json"


def _one_by_one(work: object, tasks: list[Task], *_: object) -> Iterator[tuple[int, object]]:
    return ((number, pack_shard(task)) for number, task in enumerate(tasks))


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(split, "run_tasks", _one_by_one)


def _pack(out: object, recipe: Recipe = RECIPE, limit: int = 10, **options: object) -> None:
    pack(recipe, **{"root": None, "out": str(out), "workers": 1, "limit": limit, **options})  # type: ignore[arg-type]


def _files(folder: object) -> dict[str, bytes]:
    fs, path = open_filesystem(str(folder))
    found = [name for name in fs.find(path) if not name.endswith("/")]
    return {name.removeprefix(path).lstrip("/"): fs.cat_file(name) for name in found}


def _killed_after(shards: int, out: object, recipe: Recipe = RECIPE, limit: int = 10, **options: object) -> None:
    """A pack that dies when it has so many shards."""

    def dies(work: object, tasks: list[Task], *_: object) -> Iterator[tuple[int, object]]:
        yield from ((number, pack_shard(task)) for number, task in enumerate(tasks[:shards]))
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(split, "run_tasks", dies)
        with pytest.raises(KeyboardInterrupt):
            _pack(out, recipe, limit, **options)


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    _pack(tmp_path / "whole")
    return _files(tmp_path / "whole")


FOREIGN = {
    "train/8/shard-000000.tar": b"photographs",
    "train/8/shard-000009.tar": b"photographs",
    "train/8/receipts/groceries.txt": b"bread",
    "train/8/receipts/shard-000000.tar.json": b'{"bread": 2}',
    "train/8/receipts": b"a file",
    "train/8/.packing": b"for the journey: socks",
    "train/8/index.json": b'{"pages": 3}',
    "train/rejected.jsonl": b'{"candidate": "me"}\n',
    "balance.json": b'{"account": 12}',
}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_pack_does_not_begin_where_it_would_replace_what_is_not_its_own(anywhere: str, overwrite: bool) -> None:
    for number, (name, content) in enumerate(FOREIGN.items()):
        out = f"{anywhere}/{number}"
        write_bytes(f"{out}/{name}", content)
        with pytest.raises(UserError, match=rf"{number}/{name}.*another --out"):
            _pack(out, overwrite=overwrite)
        assert _files(out) == {name: content}


def test_nothing_is_listed_or_kept_before_it_is_known_to_be_of_use(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    root.mkdir()
    (root / "0.tar").write_bytes(b"no tar, which nobody comes to see")
    write_bytes(f"{out}/{INDEX}", b"{}")
    with pytest.raises(UserError, match=r"index\.json.*another --out"):
        _pack(out, dataclasses.replace(RECIPE, source="webdataset", options={}), root=str(root))
    assert _files(out) == {INDEX: b"{}"}


BESIDE = {
    "listing/guests.txt": b"me",
    "notes.txt": b"mine",
    "train/notes.txt": b"mine",
    "train/8/notes.txt": b"mine",
    "train/8/backup.tar.tmp": b"a backup",
    "train/8/shard-1.tar": b"mine",
    "train/8/.shard-000000.tar.tmp": b"mine",
}


def test_what_has_other_names_stays(anywhere: str, whole: dict[str, bytes]) -> None:
    for name, content in BESIDE.items():
        write_bytes(f"{anywhere}/set/{name}", content)
    _pack(f"{anywhere}/set")
    assert _files(f"{anywhere}/set") == {**whole, **BESIDE}
    more = {**BESIDE, "train/8/receipts/groceries.txt": b"bread", "train/8/shard-000009.tar": b"mine"}
    for name, content in more.items():
        write_bytes(f"{anywhere}/set/{name}", content)
    for recipe, overwrite in ((RECIPE, False), (RECIPE, True), (OTHER, True), (RECIPE, True)):
        _pack(f"{anywhere}/set", recipe, overwrite=overwrite)
        found = _files(f"{anywhere}/set")
        assert {name: found[name] for name in more} == more
    assert found == {**whole, **more}
    # it is in the way of a larger set
    with pytest.raises(UserError, match=r"shard-000009\.tar.*another --out"):
        _pack(f"{anywhere}/set", limit=50, overwrite=True)
    assert _files(f"{anywhere}/set") == found


def test_the_kept_listing_has_a_name_of_its_own(tmp_path: Path) -> None:
    root, out = tmp_path / "root", tmp_path / "out"
    (out / "listing").mkdir(parents=True)
    (out / "listing/guests.txt").write_text("me")
    kept: list[str] = []

    def stops(*_: object) -> object:
        kept.extend(_files(out))
        raise KeyboardInterrupt

    root.mkdir()
    with tarfile.open(root / "0.tar", "w"):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_set, "account_of", stops)
        with pytest.raises(KeyboardInterrupt):
            _pack(out, dataclasses.replace(RECIPE, source="webdataset", options={}), root=str(root))
    assert {name.partition("/")[0] for name in kept} == {"listing", LISTING_NAME}
    assert LISTING_NAME.startswith(".")


def test_a_pack_that_was_killed_goes_on(tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    _killed_after(1, out)
    assert set(_files(out)) == {
        "train/8/.packing", "train/8/receipts/shard-000000.tar.json", "train/8/shard-000000.tar",
    }  # fmt: skip
    (out / "train/8/.shard-000001.abc.tar.tmp").write_bytes(b"left over")
    (out / "train/8/receipts/.shard-000001.tar.json.0123abcd.tmp").write_bytes(b"left over")
    _pack(out)
    assert _files(out) == whole

    # so does one of a version that had no marks, whose last shard has no receipt yet, or none has
    _killed_after(2, tmp_path / "old")
    (tmp_path / "old/train/8" / MARK_NAME).unlink()
    (tmp_path / "old/train/8/receipts/shard-000001.tar.json").unlink()
    _pack(tmp_path / "old")
    assert _files(tmp_path / "old") == whole
    (tmp_path / "older/train/8").mkdir(parents=True)
    (tmp_path / "older/train/8/.shard-000000.x_1yz89a.tar.tmp").write_bytes(b"begun")
    _pack(tmp_path / "older")
    assert _files(tmp_path / "older") == whole

    # what a larger set has left goes too
    _killed_after(5, tmp_path / "larger", OTHER, limit=50)
    (tmp_path / "larger/train/8/receipts/shard-000004.tar.json").unlink()
    _killed_after(1, tmp_path / "larger")
    _pack(tmp_path / "larger")
    assert _files(tmp_path / "larger") == whole

    # a mark that outlived the index
    mark = out / "train/8" / MARK_NAME
    mark.write_text(json.dumps({"packing": "x", "shards": 2, "earlier": []}))
    _pack(out)
    assert _files(out) == whole


def test_a_list_of_rejected_pictures_is_known_as_a_packs_own(tmp_path: Path, whole: dict[str, bytes]) -> None:
    write_bytes(str(tmp_path / "out/train" / REJECTED_NAME), b'{"key": "a", "id": "a.jpg", "reason": "broken"}\n')
    _pack(tmp_path / "out")
    assert _files(tmp_path / "out") == whole


def test_pictures_are_not_read_from_where_shards_are_written(tmp_path: Path) -> None:
    """As with tars of one's own that have the names of shards."""
    home = tmp_path / "w"
    (home / "train/8").mkdir(parents=True)
    with tarfile.open(home / "train/8/shard-000000.tar", "w") as tar:
        tar.add(__file__, "a.jpg")
    (tmp_path / "link").symlink_to(home)
    (tmp_path / "tree/train").mkdir(parents=True)
    (tmp_path / "tree/train/8").symlink_to(home / "train/8")
    before = _files(home)
    recipe = dataclasses.replace(RECIPE, source="webdataset", options={})
    for root, out in (
        (home, home),
        (home / "train", home),
        (home / "train/8", home),
        (f"{home}/train/../train/8/", f"file://{home}"),
        (home / "train/8/shard-000000.tar", home),
        (tmp_path / "link", home),
        (home, tmp_path / "link"),
        (home / "train/8", tmp_path / "tree"),
    ):
        with pytest.raises(UserError, match=r"--root .* is in .*, which is written to.*choose an --out beside"):
            _pack(out, recipe, root=str(root))
        assert _files(home) == before
    for root, out in (("s3://b/w/", "s3://b/w"), ("memory://w/train/8/x", "memory://w")):
        with pytest.raises(UserError, match="--root"):
            check_places(root, Folder.at(out), ("train",), (8,))
    for root, out in ((tmp_path, tmp_path / "out"), (tmp_path / "out/raw", tmp_path / "out"), ("MODULE:X", "out")):
        check_places(str(root), Folder.at(out), ("train",), (8,))


def _files_of(files: dict[str, bytes], split: str) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.startswith(split)}


def test_overwriting_begins_when_all_that_can_be_checked_is_good(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _pack(out, BOTH)
    before = _files(out)

    def checked(rejected: object, listing: object, max_rejects: float, top: Folder) -> None:
        if top.url.endswith("test"):
            raise UserError("too many")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "check_rejected", checked)
        with pytest.raises(UserError, match="too many"):
            _pack(out, BOTH, overwrite=True)
    assert _files(out) == before


def test_overwriting_takes_a_split_when_its_turn_comes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    _pack(out, BOTH)
    before = _files(out)
    _killed_after(1, out, BOTH, overwrite=True)
    after = _files(out)
    assert _files_of(after, "test") == _files_of(before, "test")
    assert INDEX not in after
    assert BALANCE_NAME not in after  # it would tell of what is gone
    _pack(out, BOTH)
    assert _files(out) == before


def _meanwhile(patch: pytest.MonkeyPatch, other: Callable[[], None]) -> None:
    """While the next pack is in its second shard, the `other` one runs from beginning to end."""

    def run_tasks(work: object, tasks: list[Task], *_: object) -> Iterator[tuple[int, object]]:
        patch.setattr(split, "run_tasks", _one_by_one)
        for number, task in enumerate(tasks):
            once = [other] if number == 1 else []
            yield number, pack_shard(task, lambda once=once: once.pop()() is None if once else True)  # type: ignore[misc]

    patch.setattr(split, "run_tasks", run_tasks)


def test_of_two_data_sets_packed_to_one_place_one_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pack(tmp_path / "other", OTHER)
    for out, part in ((tmp_path / "a", Part(0, 1)), (tmp_path / "b", Part(0, 2))):
        _meanwhile(monkeypatch, lambda out=out: _pack(out, OTHER))  # type: ignore[misc]
        with pytest.raises(UserError, match=r"another pack.* writes to .*8 at the same time"):
            _pack(out, part=part, limit=20)
        assert _files(out) == _files(tmp_path / "other")


def test_a_pack_that_is_taken_over_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    _meanwhile(monkeypatch, lambda: _killed_after(0, out, OTHER))
    with pytest.raises(UserError, match="another pack"):
        _pack(out)
    _pack(out, OTHER)
    _pack(tmp_path / "other", OTHER)
    assert _files(out) == _files(tmp_path / "other")


def test_shards_that_another_pack_withdraws_are_not_left_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_tasks(work: object, tasks: list[Task], *_: object) -> Iterator[tuple[int, object]]:
        yield from _one_by_one(work, tasks)
        (tmp_path / "out/train/8/receipts/shard-000000.tar.json").unlink()

    monkeypatch.setattr(split, "run_tasks", run_tasks)
    with pytest.raises(UserError, match=r"another pack writes to .*8 at the same time: it has withdrawn 1 of 2 shards"):
        _pack(tmp_path / "out")


def test_the_same_pack_twice_at_once_ends_with_one_message(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    _meanwhile(monkeypatch, lambda: _pack(out))
    with pytest.raises(UserError, match=r"was removed before it became shard-000001\.tar: another pack.*pack again"):
        _pack(out)
    assert _files(out) == whole

    # between two shards it is noticed by nobody: the bytes are the same
    def run_tasks(work: object, tasks: list[Task], *_: object) -> Iterator[tuple[int, object]]:
        monkeypatch.setattr(split, "run_tasks", _one_by_one)
        yield 0, pack_shard(tasks[0])
        _pack(tmp_path / "between")
        yield 1, pack_shard(tasks[1])

    monkeypatch.setattr(split, "run_tasks", run_tasks)
    _pack(tmp_path / "between")
    assert _files(tmp_path / "between") == whole


def test_a_split_that_another_pack_has_finished_is_not_packed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second split is begun long after it was looked at."""
    _pack(tmp_path / "whole", BOTH)

    def after_the_first(out: Path, recipe: Recipe) -> None:
        def run_tasks(work: object, tasks: list[Task], *_: object) -> Iterator[tuple[int, object]]:
            monkeypatch.setattr(split, "run_tasks", _one_by_one)
            yield from _one_by_one(work, tasks)
            _pack(out, dataclasses.replace(recipe, splits=("test",)))

        monkeypatch.setattr(split, "run_tasks", run_tasks)

    after_the_first(tmp_path / "same", BOTH)
    _pack(tmp_path / "same", BOTH)
    assert "has been packed meanwhile" in capsys.readouterr().out
    assert _files(tmp_path / "same") == _files(tmp_path / "whole")
    after_the_first(tmp_path / "other", OTHER)
    with pytest.raises(UserError, match="holds another data set"):
        _pack(tmp_path / "other", BOTH)
    _pack(tmp_path / "lone", dataclasses.replace(OTHER, splits=("test",)))
    assert _files_of(_files(tmp_path / "other"), "test") == _files_of(_files(tmp_path / "lone"), "test")


@pytest.mark.parametrize(
    ("name", "reason", "kind"),
    [
        ("e.png", "cannot identify the format of e.png", "cannot identify the format of NAME"),
        ("e.png", "no edge or eye is in it", "no edge or eye is in it"),
        ("a/e.png", "cannot identify the format of e.png", "cannot identify the format of NAME"),
        ("at.png", "at.png: the catalogue at.txt has 3 lines", "NAME: the catalogue NAME.txt has N lines"),
        ("b+.jpg", "b+.jpg is cut short", "NAME is cut short"),
    ],
)
def test_a_name_is_taken_out_of_a_reason_as_a_whole(name: str, reason: str, kind: str) -> None:
    assert _kind({"id": name, "reason": reason}) == kind
