"""A recipe: which source becomes which shards. One small TOML file per data set (shards/README.md)."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.text import PUBLISHED, check_encoder

_PACKAGE = Path(__file__).resolve().parent.parent
RECIPE_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "shards")
"""Where a bare name is looked up: inside an installed wheel, and in a checkout."""


@dataclass(frozen=True)
class Recipe:
    """The content of a recipe file."""

    name: str
    """Name of the data set, written into its index; packed to data/NAME unless told otherwise."""
    source: str
    """Name of the source (stackgan_dist.pack.sources)."""
    text_encoder: str
    """The encoder (stackgan_dist.text): a name, or the file of a trained one."""
    sizes: tuple[int, ...] = (76, 304)
    """Sides of the stored squares in pixels, one folder each."""
    splits: tuple[str, ...] = ("train", "test")
    """Splits of the source."""
    samples_per_shard: int = 512
    """At most so many pictures in a shard; the shards of a split are equal up to one picture."""
    shard_mb: float | None = None
    """Aim at shards of so many megabytes at the largest size instead, judged by the first pictures."""
    captions_per_image: int | None = None
    """Captions kept of each picture; one with fewer begins again. None: as many as any picture has, at most 10."""
    seed: int = 0
    """Decides the order of the pictures."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the source."""

    def __post_init__(self) -> None:
        if self.text_encoder != PUBLISHED:
            check_encoder(self.text_encoder)
        if not self.sizes or min(self.sizes) < 8 or len(set(self.sizes)) < len(self.sizes):
            raise UserError(f"sizes are {list(self.sizes)}; give different sides of at least 8 pixels, e.g. 76 304")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise UserError(f"splits are {list(self.splits)}; give at least one, each once, e.g. train test")
        if self.samples_per_shard < 2:
            raise UserError(f"samples_per_shard is {self.samples_per_shard}; a shard must hold two classes at least")
        if self.shard_mb is not None and not self.shard_mb > 0:
            raise UserError(f"shard_mb is {self.shard_mb}; it must be above 0")
        if self.captions_per_image is not None and self.captions_per_image < 1:
            raise UserError(f"captions_per_image is {self.captions_per_image}; it must be at least 1")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it must not be negative")


def load_recipe(name: str) -> Recipe:
    """The recipe in the file `name`, or the one that comes with the package under the bare name `name`.

    Raises UserError when there is none, or when it is not a recipe.
    """
    path = _find(name)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    return _parse(content, path)


def _find(name: str) -> Path:
    if name.endswith(".toml") or "/" in name:
        if not Path(name).is_file():
            raise UserError(f"there is no recipe {name}")
        return Path(name)
    for folder in RECIPE_FOLDERS:
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    known = sorted({path.stem for folder in RECIPE_FOLDERS for path in folder.glob("*.toml")})
    raise UserError(f"there is no recipe called {name!r}; known: {', '.join(known)}; or give the path of a .toml file")


_KINDS: Mapping[str, type] = {
    "name": str,
    "source": str,
    "text_encoder": str,
    "sizes": int,
    "splits": str,
    "samples_per_shard": int,
    "shard_mb": float,
    "captions_per_image": int,
    "seed": int,
}


def _parse(content: dict[str, Any], path: Path) -> Recipe:
    known = [f.name for f in dataclasses.fields(Recipe)]
    unknown = sorted(set(content) - set(known))
    if unknown:
        raise UserError(f"{path} has the unknown key {unknown[0]!r}; a recipe has: {', '.join(known)}")
    missing = [key for key in ("name", "source", "text_encoder") if key not in content]
    if missing:
        raise UserError(f"{path} lacks the key {missing[0]!r}")
    options = content.pop("options", {})
    if not isinstance(options, dict):
        raise UserError(f"{path}: options must be a table, [options], with the arguments of the source")
    values: dict[str, Any] = {}
    for key, value in content.items():
        is_list = key in ("sizes", "splits")
        items = value if is_list and isinstance(value, list) else [value]
        if is_list != isinstance(value, list) or not all(_is_of_kind(item, _KINDS[key]) for item in items):
            kind = f"{'a list of ' if is_list else ''}{_KINDS[key].__name__}"
            raise UserError(f"{path}: {key} is {value!r}; it must be {kind}")
        values[key] = tuple(items) if is_list else value
    return Recipe(**values, options=options)


def _is_of_kind(item: object, kind: type) -> bool:
    return type(item) is kind or (kind is float and type(item) is int)
