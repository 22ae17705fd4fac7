"""The command that packs what is missing of a data set, in the words of what lies beside it."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Sequence
from typing import Any

from stackgan_dist.data.index import Index, load_index, packed_folders
from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import join
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text.files import file_of, has_file

_OF_THEIR_NAME = ("painted", "cub", "oxford102", "coco")
"""Data sets that are called as their recipe."""


def missing_command(url: str, split: str, size: int) -> str:
    """What packs the split `split` of the set in the folder `url` at `size` pixels.

    As the sets there are packed, where there are any: the same size of another split, or the same split at another
    size, must fit. DIR stands for the folder of the source, which an index does not know.
    """
    try:
        every = [load_index(folder) for folder in packed_folders(Folder.at(url)).values()]
        found = [index for index in every if "source" in index.recipe]
    except (UserError, OSError):
        found = []
    if found:
        nearest = next((index for index in found if index.split == split), found[0])
        splits = {split, *(index.split for index in found)}
        return pack_command(url, nearest, [size], sorted(splits, key=_place))
    name = url.rstrip("/").rsplit("/", 1)[-1]
    known = name in _OF_THEIR_NAME
    words = ["painted"] if name == "painted" else [name if known else "folder", "--root", "DIR"]
    words += [] if known else ["--name", name]
    return _command([*words, "--out", url, "--sizes", str(size)])


def packed_splits(url: str, size: int) -> list[str]:
    """The splits of the set in the folder `url` that have pictures of `size` pixels, that to train on first."""
    try:
        found = packed_folders(Folder.at(url))
    except (UserError, OSError):
        return []
    return sorted((name.split("/")[0] for name in found if name.endswith(f"/{size}")), key=_place)


def pack_command(
    url: str,
    like: Index,
    sizes: Sequence[int],
    splits: Sequence[str],
    *,
    encoder: str | None = None,
    overwrite: bool = False,
) -> str:
    """What packs `splits` into the folder `url` at `sizes` as the set with the index `like` was packed.

    `encoder` is a name, or a file or folder of a trained one, in place of that of `like`, whose file lies in `url`.
    """
    recipe = like.recipe
    source = recipe.get("source", "folder")  # the recipe of a set that does not say
    words = [source, *([] if source == "painted" else ["--root", "DIR"]), "--out", url]
    words += [] if like.name == source else ["--name", like.name]
    if encoder is None:
        encoder = join(url, file_of(like.text_encoder)) if has_file(like.text_encoder) else like.text_encoder
    words += ["--encoder", encoder]
    words += ["--sizes", *map(str, sizes), "--splits", *splits]
    if "samples_per_shard" in recipe:
        words += ["--samples-per-shard", str(recipe["samples_per_shard"])]
    if options := [f"{key}={_toml(value)}" for key, value in recipe.get("options", {}).items()]:
        words += ["--options", *options]
    words += ["--overwrite"] if overwrite else []
    seed = recipe.get("seed", 0)
    return _command(words) + (f"  # with your own recipe file, whose seed is {seed}" if seed else "")


def _place(split: str) -> tuple[bool, str]:
    return split != "train", split


def _command(words: Sequence[str]) -> str:
    return f"python -m stackgan_dist.pack {shlex.join(words)}"


def _toml(value: Any) -> str:
    """`value` as --options takes it: what is not TOML is a text."""
    if isinstance(value, str):
        try:
            tomllib.loads(f"value = {value}")
        except tomllib.TOMLDecodeError:
            return value
    return json.dumps(value)
