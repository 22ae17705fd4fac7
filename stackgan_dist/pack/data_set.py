"""From a recipe to shards and their index: what goes into which shard, who packs it, and what counts as finished.

The order of the pictures is a hashed permutation, cut into shards of equal size; both depend on the recipe and the
source alone. Hence any number of processes, parts and restarts write the same bytes. `index.json` is written last.
"""

from __future__ import annotations

from collections.abc import Mapping

from stackgan_dist.data.index import INDEX_NAME
from stackgan_dist.pack.balance import BALANCE_NAME, account_of, balance_of, read_split
from stackgan_dist.pack.job import WHOLE, Part, plan_job
from stackgan_dist.pack.listing import Listing, list_split
from stackgan_dist.pack.places import LISTING_NAME, check_places
from stackgan_dist.pack.recipe import Recipe
from stackgan_dist.pack.sources import KeepingSource, open_source
from stackgan_dist.pack.split import pack_split
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text import encoder_name
from stackgan_dist.text.files import has_file, keep_file, read_file


def pack(
    recipe: Recipe,
    *,
    root: str | None,
    out: str,
    workers: int,
    limit: int | None = None,
    max_rejects: float = 0.01,
    overwrite: bool = False,
    part: Part = WHOLE,
) -> None:
    """Pack the data set of `recipe` into OUT/{split}/{size}/. What an earlier call has finished is not done again.

    Args:
        recipe: what to pack.
        root: the folder that the source reads.
        out: URL of the folder to write to.
        workers: number of packing processes; the shards are the same bytes for any.
        limit: at most so many pictures of each split.
        max_rejects: share of a split's pictures that may be unusable.
        overwrite: pack again what is there.
        part: the shards to pack; whoever finishes last writes the index.

    Raises:
        UserError: the source is not as expected, something else is at `out`, too many pictures cannot be used, or a
            shard would hold one class only. What is not finished has no index, and what was there stays until the
            packing of its split begins.
    """
    encoder = encoder_name(recipe.text_encoder)
    source = open_source(recipe.source, root, recipe.options)
    folder = Folder.at(out)
    check_places(root, folder, recipe.splits, recipe.sizes)
    if isinstance(source, KeepingSource):
        source.keep_listing((folder / LISTING_NAME).url)
    listings = {split: list_split(recipe, split, source, limit) for split in recipe.splits}
    account = account_of(source, listings)
    jobs = [
        plan_job(recipe, encoder, split, source, listing, folder / split, max_rejects, overwrite, part)
        for split, listing in _not_empty(recipe.name, listings).items()
    ]
    if has_file(encoder):  # new sentences need it, wherever the set is taken
        keep_file(encoder, read_file(recipe.text_encoder)[0], folder)
    if any(job.cleared for job in jobs):
        folder.remove(BALANCE_NAME)  # it tells of what is about to go
    for job in jobs:
        if job.folders:
            pack_split(job, workers, max_rejects, part)
    if not all(INDEX_NAME in size.names() for job in jobs for size in job.folders.values()):
        return  # the part that finishes the set has its balance
    if isinstance(source, KeepingSource):
        folder.remove(LISTING_NAME)
    balance = balance_of(
        recipe.name, account, [read_split(job.split, job.listing, job.top, recipe.sizes[0]) for job in jobs]
    )
    folder.write(BALANCE_NAME, balance.to_bytes())
    print(balance, flush=True)
    balance.check()


def _not_empty(name: str, listings: Mapping[str, Listing]) -> dict[str, Listing]:
    """The splits that there are pictures of; if there are any for training, the others may be empty."""
    there = {split: listing for split, listing in listings.items() if listing.records or listing.rejected}
    if not there.get("train"):
        return dict(listings)  # the first empty one is an error
    for split in listings:
        if split not in there:
            print(f"{name} has no pictures of the split {split}; it is packed without", flush=True)
    return there
