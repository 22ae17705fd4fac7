"""Pack a data set into shards: `python -m stackgan_dist.pack RECIPE --root DIR --out URL`."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from stackgan_dist.errors import UserError, front_door
from stackgan_dist.packing.data_set import pack
from stackgan_dist.packing.recipe import load_recipe


@dataclass(frozen=True)
class Options:
    """Pack pictures and captions into shards with an index, on this machine or on an object store.

    Options left out are those of the recipe. What is packed already stays as it is.
    """

    recipe: tyro.conf.Positional[str]
    """A recipe that comes with the package (painted, oxford102), or the path of a TOML file."""
    root: str | None = None
    """Folder with the source's files; the recipe says what must be in it."""
    out: str | None = None
    """Folder or URL (s3://...) to pack to, as OUT/SPLIT/SIZE/; default data/NAME."""
    sizes: Annotated[tuple[int, ...] | None, tyro.conf.arg(metavar="PX ...")] = None
    """Sides of the stored squares in pixels: 76 for training at 64, 152 at 128, 304 at 256."""
    splits: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="SPLIT ...")] = None
    """Splits to pack, e.g. train test."""
    encoder: str | None = None
    """Text encoder: ngrams (no weights) or minilm (a sentence encoder)."""
    samples_per_shard: int | None = None
    """At most so many pictures in a shard."""
    workers: int | None = None
    """Packing processes; default one per core. The shards are the same bytes for any number."""
    limit: int | None = None
    """At most so many pictures of each split, for a trial."""
    max_rejects: float = 0.01
    """Share of a split's pictures that may be undecodable before packing stops."""
    overwrite: bool = False
    """Pack again what is there, and replace another data set at OUT."""


@front_door
def main() -> None:
    """Parse, look up the recipe, pack."""
    options = tyro.cli(Options, description=Options.__doc__)
    recipe = load_recipe(options.recipe)
    replaced: dict[str, Any] = {
        "sizes": options.sizes,
        "splits": options.splits,
        "text_encoder": options.encoder,
        "samples_per_shard": options.samples_per_shard,
    }
    recipe = dataclasses.replace(recipe, **{key: value for key, value in replaced.items() if value is not None})
    workers = len(os.sched_getaffinity(0)) if options.workers is None else options.workers
    if workers < 1 or (options.limit is not None and options.limit < 1):
        raise UserError(f"--workers is {workers} and --limit {options.limit}; both must be at least 1")
    pack(
        recipe,
        root=options.root,
        out=options.out or f"data/{recipe.name}",
        workers=workers,
        limit=options.limit,
        max_rejects=options.max_rejects,
        overwrite=options.overwrite,
    )


if __name__ == "__main__":
    main()
