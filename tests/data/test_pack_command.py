"""The command after "no shards at ..." is run as it stands, and then the shards are there."""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path

import pytest
from PIL import Image

from stackgan_dist.cli.doors import command_main
from stackgan_dist.config import DataConfig
from stackgan_dist.data import pack_command
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import Index, load_index
from stackgan_dist.errors import UserError
from stackgan_dist.importable import options_of
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.recipe import Recipe, load_recipe
from stackgan_dist.pack.sources import SOURCES
from stackgan_dist.text.files import name_of


def _words(message: str) -> list[str]:
    """The command in a message, as a shell reads it."""
    prefix = "  python -m stackgan_dist."
    (line,) = [line.removeprefix(prefix) for line in message.splitlines() if line.startswith(prefix)]
    return shlex.split(line, comments=True)


def _run(message: str, patch: pytest.MonkeyPatch, root: Path | None = None, *more: str) -> None:
    """Run the command that a message suggests, with `root` in place of DIR, on as little as will do."""
    module, *words = _words(message)
    patch.setattr("sys.argv", [module, *(str(root) if word == "DIR" else word for word in words), *more])
    command_main(module)()


def _missing(url: Path | str, split: str = "train", image_size: int = 64) -> str:
    with pytest.raises(UserError, match="no shards at") as error:
        open_packed(DataConfig(url=str(url)), image_size, split)
    return str(error.value)


def _folder(root: Path) -> Path:
    for number in range(24):
        path = root / f"kind {number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (80, 80), (number, 0, 0)).save(path)
        (root / "my captions.csv").open("a").write(
            ("" if number else "file,caption\n") + f"{path.relative_to(root)},a {number}\n"
        )
    return root


def test_painted_birds_need_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = tmp_path / "data" / "painted"
    message = _missing(url)
    assert f"python -m stackgan_dist.pack painted --out {url} --sizes 76" in message
    _run(message, monkeypatch, None, "--limit", "4", "--workers", "1")
    assert open_packed(DataConfig(url=str(url)), 64).index.samples == 4


@pytest.mark.parametrize("name", ["mine", "my set's", "[1]"])
def test_a_folder_of_ones_own_is_packed_by_the_recipe_for_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    root = _folder(tmp_path / "root")
    (root / "my captions.csv").rename(root / "captions.csv")
    url = tmp_path / name
    message = _missing(f"{url}/")
    words = _words(message)
    assert words[:5] == ["pack", "folder", "--root", "DIR", "--name"]
    _run(message, monkeypatch, root, "--workers", "1", "--encoder", "ngrams")
    index = open_packed(DataConfig(url=str(url)), 64).index
    assert (index.name, index.image_size) == (name, 76)


def test_what_lies_beside_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, url = _folder(tmp_path / "my pictures"), tmp_path / "set"
    options = {"captions": "my captions.csv", "classes": "folders", "test_fraction": 0.3, "partial": True}
    recipe = Recipe("mine", "folder", "ngrams", sizes=(76,), splits=("train",), samples_per_shard=9, options=options)
    pack(recipe, root=str(root), out=str(url), workers=1)
    # another size of the same split, and a split that is not there
    for split, image_size in (("train", 16), ("test", 64)):
        message = _missing(url, split, image_size)
        _run(message, monkeypatch, root, "--workers", "1")
        packed = open_packed(DataConfig(url=str(url)), image_size, split).index
        first = load_index(str(url / "train/76"))
        assert (packed.name, packed.text_encoder) == (first.name, first.text_encoder) == ("mine", "ngrams")
        assert packed.recipe["options"] == first.recipe["options"] == options
        assert packed.recipe["samples_per_shard"] == 9
    monkeypatch.setattr("sys.argv", ["pack", "verify", str(url), "--workers", "1"])
    command_main("pack")()


def test_every_option_of_a_source_survives_the_command_line(tmp_path: Path) -> None:
    options = {
        "a": True,
        "b": 2014,
        "c": 0.5,
        "d": "x y.csv",
        "e": [1, 20],
        "f": "",
        "g": "true",
        "h": "7",
        "i": 'a "b"',
    }
    like = Index("n", "train", 76, "ngrams", 256, 1, (), 0, (), {"source": "folder", "options": options, "seed": 5})
    command = pack_command.pack_command("a b", like, [76], ["train"])
    assert command.endswith("  # with your own recipe file, whose seed is 5")
    words = _words(f"  {command}")
    given = words[words.index("--options") + 1 :]
    assert options_of(given, "--options") == options
    assert {*pack_command._OF_THEIR_NAME} == {*SOURCES} - {"folder", "parquet", "webdataset"}
    assert all(load_recipe(name).name == name == load_recipe(name).source for name in pack_command._OF_THEIR_NAME)


def test_a_trained_encoder_is_taken_from_the_set(tmp_path: Path) -> None:
    name = name_of(b"an encoder")
    like = Index("painted", "train", 76, name, 24, 1, (), 0, (), {"source": "painted"})
    words = _words("  " + pack_command.pack_command("s3://b/set", like, [76], ["train", "test"]))
    assert words[words.index("--encoder") + 1] == f"s3://b/set/{name}.pt"


def test_an_index_alone_points_to_the_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="no shards at") as error:
        load_index(str(tmp_path))
    with pytest.raises(SystemExit) as end:
        _run(str(error.value), monkeypatch)
    assert not end.value.code
    assert "--root" in capsys.readouterr().out


def test_the_set_above_may_hold_anything(tmp_path: Path) -> None:
    (tmp_path / "train/152").mkdir(parents=True)
    (tmp_path / "train/152/index.json").write_text("no index")
    assert "pack folder --root DIR" in _missing(tmp_path)
    like = Index("x", "train", 152, "ngrams", 256, 1, (), 0, ())
    (tmp_path / "train/152/index.json").write_bytes(like.to_bytes())
    assert json.loads((tmp_path / "train/152/index.json").read_text())["recipe"] == {}
    assert dataclasses.replace(like, recipe={}) == like
    assert "pack folder --root DIR" in _missing(tmp_path)  # one of no known source
