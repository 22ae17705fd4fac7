"""Packed sets whose names mean each other as patterns: none is read, replaced or removed for another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.pack import reshard, split, verify
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.job import Part
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.storage.files import open_filesystem

RECIPE = Recipe(
    "painted", "painted", "ngrams", sizes=(8,), splits=("train",), samples_per_shard=5, options={"pictures": 240}
)


@pytest.fixture(autouse=True)
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_tasks(work: object, tasks: list[object], *_: object) -> Iterator[tuple[int, object]]:
        return ((number, work(task)) for number, task in enumerate(tasks))  # type: ignore[operator]

    for module in (split, reshard, verify):
        monkeypatch.setattr(module, "run_tasks", run_tasks)


def _pack(out: str, **options: object) -> None:
    pack(RECIPE, root=None, out=out, workers=1, limit=10, **options)  # type: ignore[arg-type]


def _files(folder: str) -> dict[str, bytes]:
    fs, path = open_filesystem(folder)
    return {name.removeprefix(path): fs.cat_file(name) for name in fs.find(path) if not name.endswith("/")}


@pytest.mark.parametrize("name", ["pk[1]", "pk?", "*"])
def test_overwriting_a_set_leaves_its_neighbours(anywhere: str, name: str) -> None:
    _pack(f"{anywhere}/pk1")
    before = _files(f"{anywhere}/pk1")
    assert len(before) == 4  # two shards, their index, and the balance
    for options in ({}, {"overwrite": True}, {"part": Part(0, 2)}):
        _pack(f"{anywhere}/{name}", **options)
    assert _files(f"{anywhere}/pk1") == before
    assert _files(f"{anywhere}/{name}") == before


@pytest.mark.parametrize("name", ["pk[1]", "pk?", "*"])
def test_another_set_is_not_read_for_one_that_is_missing(anywhere: str, name: str) -> None:
    _pack(f"{anywhere}/pk1")
    for read in (
        lambda: verify.verify(f"{anywhere}/{name}", 1),
        lambda: verify.verify(f"{anywhere}/{name}/train", 1),
        lambda: reshard.reshard(f"{anywhere}/{name}", f"{anywhere}/new", 4, None, None, 1),
    ):
        with pytest.raises(UserError, match=r"there is no index\.json at or below"):
            read()


def test_a_set_of_any_name_is_verified_and_resharded(anywhere: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, new = "birds [a-z]*? {1,2}!#%41 ü", "new[1]"
    _pack(f"{anywhere}/{name}")
    verify.verify(f"{anywhere}/{name}", 1)
    assert "verified train/8: 2 shards, 10 pictures" in capsys.readouterr().out
    reshard.reshard(f"{anywhere}/{name}", f"{anywhere}/{new}", 5, None, None, 1)
    whole, again = (load_index(f"{anywhere}/{each}/train/8") for each in (name, new))
    assert whole.shards == again.shards
    verify.verify(f"{anywhere}/{new}", 1)
