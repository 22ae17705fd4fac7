"""Pack a data set into shards: `python -m stackgan_dist.pack RECIPE --root DIR --out URL`.

    python -m stackgan_dist.pack RECIPE --part K/N ...    one of N processes, anywhere; also under torchrun
    python -m stackgan_dist.pack verify URL               re-read a set and name every fault in it
    python -m stackgan_dist.pack reshard URL --out URL2   the same samples in shards of another size

verify and reshard have a --help of their own.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from stackgan_dist.cli.doors import front_door, parse_options
from stackgan_dist.distributed.environment import ranks_from_environment
from stackgan_dist.errors import UserError
from stackgan_dist.importable import options_of
from stackgan_dist.machine import cores_of_this_rank
from stackgan_dist.pack.data_set import pack
from stackgan_dist.pack.job import Part
from stackgan_dist.pack.recipe import SamplesPerShard, Side, load_recipe
from stackgan_dist.pack.reshard import reshard
from stackgan_dist.pack.verify import verify
from stackgan_dist.ranges import Range

Workers = Annotated[int, Range(at_least=1)] | None


@dataclass(frozen=True)
class Options:
    """Pack pictures and captions into shards with an index, on this machine or on an object store.

    Options left out are those of the recipe. What is packed already stays as it is; what was interrupted goes on.
    """

    recipe: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RECIPE")]
    """The recipe: one that comes with the package (painted, cub, oxford102, coco, folder, parquet, webdataset), the
    path of a TOML file, or MODULE:CLASS, a source of your own (docs/extending.md)."""
    root: str | None = None
    """The folder or URL of the source's files; the recipe says what must be in it."""
    out: str | None = None
    """The folder or URL (s3://...) to pack to, as OUT/SPLIT/SIZE/. The default is data/NAME."""
    name: str | None = None
    """The name of the data set, e.g. for your own folder of pictures."""
    options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE ...")] = ()
    """Arguments of the source (shards/README.md lists them), e.g. partial=true captions=my.csv."""
    sizes: Annotated[tuple[Side, ...] | None, tyro.conf.arg(metavar="PX ...")] = None
    """The sides of the stored squares in pixels: 76 for training at 64, 152 at 128, 304 at 256."""
    splits: Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="SPLIT ...")] = None
    """The splits to pack, e.g. train test."""
    encoder: str | None = None
    """The text encoder: ngrams (no weights), minilm (a sentence encoder), hf:FOLDER (the local folder of a model as
    Hugging Face has it), the folder or file of one trained by stackgan_dist.train_text_encoder, published (the source's
    own embeddings), or MODULE:CLASS, an encoder of your own (docs/extending.md)."""
    samples_per_shard: SamplesPerShard | None = None
    """Put at most this many pictures into a shard."""
    shard_mb: Annotated[float, Range(above=0)] | None = None
    """Aim at shards of this many megabytes (at the largest size) instead."""
    part: str | None = None
    """K/N packs only every N-th shard, from the K-th (1 to N) on; the last process to finish writes the index. Under
    torchrun every rank is a part by itself."""
    workers: Workers = None
    """The number of packing processes. The default is one per core. The shards are the same bytes for any number."""
    limit: Annotated[int, Range(at_least=1)] | None = None
    """Pack at most this many pictures of each split, for a trial."""
    max_rejects: Annotated[float, Range(at_least=0, at_most=1)] = 0.01
    """Packing stops when more than this share of a split's pictures is unusable."""
    overwrite: bool = False
    """Pack again what is there, and replace another data set at OUT."""


@dataclass(frozen=True)
class VerifyOptions:
    """Re-read packed data and name every truncated, missing, duplicated, altered or undecodable thing in it."""

    url: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="URL")]
    """The packed data set: the folder of an index.json, or one above."""
    workers: Workers = None
    """The number of reading processes. The default is one per core."""


@dataclass(frozen=True)
class ReshardOptions:
    """Put the samples of a packed data set into shards of another size; they stay in their order, byte for byte."""

    url: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="URL")]
    """The packed data set: the folder of an index.json, or one above."""
    out: str
    """The folder or URL to write to."""
    samples_per_shard: SamplesPerShard | None = None
    """Put at most this many pictures into a shard."""
    shard_mb: Annotated[float, Range(above=0)] | None = None
    """Alternatively, write shards of this many megabytes."""
    shards: Annotated[int, Range(at_least=1)] | None = None
    """Alternatively, write this many shards."""
    workers: Workers = None
    """The number of writing processes. The default is one per core."""


@front_door
def main() -> None:
    """Parse, look up the recipe, pack; or verify; or reshard."""
    command, rest = sys.argv[1:2], sys.argv[2:]
    if command == ["verify"]:
        checked = parse_options(VerifyOptions, "pack verify", VerifyOptions.__doc__, arguments=rest)
        verify(checked.url, checked.workers or cores_of_this_rank())
        return
    if command == ["reshard"]:
        asked = parse_options(ReshardOptions, "pack reshard", ReshardOptions.__doc__, arguments=rest)
        workers = asked.workers or cores_of_this_rank()
        reshard(asked.url, asked.out, asked.samples_per_shard, asked.shard_mb, asked.shards, workers)
        return
    options = parse_options(Options, "pack", f"{__doc__}\n{inspect.cleandoc(Options.__doc__ or '')}")
    recipe = load_recipe(options.recipe)
    replaced: dict[str, Any] = {
        "name": options.name,
        "sizes": options.sizes,
        "splits": options.splits,
        "text_encoder": options.encoder,
        "samples_per_shard": options.samples_per_shard,
        "shard_mb": options.shard_mb,
        "options": {**recipe.options, **options_of(options.options, "--options")} if options.options else None,
    }
    recipe = dataclasses.replace(recipe, **{key: value for key, value in replaced.items() if value is not None})
    pack(
        recipe,
        root=options.root,
        out=options.out or f"data/{recipe.name}",
        workers=options.workers or cores_of_this_rank(),
        limit=options.limit,
        max_rejects=options.max_rejects,
        overwrite=options.overwrite,
        part=_part(options.part),
    )


def _part(asked: str | None) -> Part:
    if asked is None:  # parts need not talk to each other: torchrun's variables are enough
        return Part(ranks_from_environment().rank, ranks_from_environment().world_size)
    match = re.fullmatch(r"(\d+)/(\d+)", asked)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UserError(f"--part is {asked!r}; give K/N with K from 1 to N, e.g. --part 1/8")
    return Part(int(match[1]) - 1, int(match[2]))


if __name__ == "__main__":
    main()
