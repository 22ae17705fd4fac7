"""A recipe: which source becomes which shards. One small TOML file per data set (shards/README.md)."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from stackgan_dist.errors import UserError
from stackgan_dist.importable import is_importable
from stackgan_dist.near_names import did_you_mean
from stackgan_dist.ranges import Range, Seed, check_fields
from stackgan_dist.text import PUBLISHED, check_encoder

_PACKAGE = Path(__file__).resolve().parent.parent
RECIPE_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parent / "shards")
"""Where a bare name is looked up: inside an installed wheel, and in a checkout."""


Side = Annotated[int, Range(at_least=8, at_most=65_500)]
"""Of a stored square in pixels; JPEG ends there."""
SamplesPerShard = Annotated[int, Range(at_least=2)]
"""A shard holds two classes at least: wrong texts are taken from another class of the same shard."""


@dataclass(frozen=True)
class Recipe:
    """The content of a recipe file."""

    name: str
    """The name of the data set, written into its index; it is packed to data/NAME unless --out says otherwise."""
    source: str
    """The source: a name (stackgan_dist.pack.sources), or MODULE:CLASS."""
    text_encoder: str
    """The encoder (stackgan_dist.text): a name, the file or folder of a trained one, hf:FOLDER, or MODULE:CLASS."""
    sizes: tuple[Side, ...] = (76, 304)
    """The sides of the stored squares in pixels, one folder each."""
    splits: tuple[str, ...] = ("train", "test")
    """The splits of the source."""
    samples_per_shard: SamplesPerShard = 512
    """At most this many pictures are in a shard; the shards of a split are equal up to one picture."""
    shard_mb: Annotated[float, Range(above=0)] | None = None
    """Aim at shards of this many megabytes at the largest size instead, judged by the first pictures."""
    captions_per_image: Annotated[int, Range(at_least=1)] | None = None
    """The number of captions kept of each picture; one with fewer begins again. None keeps as many as any picture has,
    at most 10."""
    seed: Seed = 0
    """The seed of the order of the pictures."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of the source."""

    def __post_init__(self) -> None:
        """Raises UserError for what cannot be packed."""
        check_fields(self, "")
        if self.text_encoder != PUBLISHED:
            check_encoder(self.text_encoder)
        if not self.sizes or len(set(self.sizes)) < len(self.sizes):
            raise UserError(f"sizes are {list(self.sizes)}; give different sides, e.g. 76 304")
        if not self.splits or len(set(self.splits)) < len(self.splits):
            raise UserError(f"splits are {list(self.splits)}; give at least one, each once, e.g. train test")


def load_recipe(name: str) -> Recipe:
    """The recipe in the file `name`, or the one that comes with the package under the bare name `name`.

    A source of the user's own, MODULE:CLASS, needs none: its set is called "own", as those of the presets own-*.

    Raises UserError when there is none, or when it is not a recipe.
    """
    if is_importable(name):
        return Recipe(name="own", source=name, text_encoder="minilm")
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
    raise UserError(
        f"there is no recipe called {name!r}; known: {', '.join(known)}; or give the path of a .toml file."
        f"{did_you_mean(name, known)}"
    )


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
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in content.items()}
    try:
        return Recipe(**values, options=options)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
