"""One split packed: shards by several processes, a receipt for each, and the index once all parts have theirs."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence

from stackgan_dist.data.index import INDEX_NAME, Index, Shard
from stackgan_dist.errors import UserError
from stackgan_dist.pack.claim import check_claim, clear, look, other_pack, release
from stackgan_dist.pack.job import WHOLE, Job, Part, begin, check_classes
from stackgan_dist.pack.pool import run_tasks
from stackgan_dist.pack.receipts import Receipt, read_receipts, withdraw_receipts, write_receipt
from stackgan_dist.pack.rejects import check_rejected, write_rejected
from stackgan_dist.pack.shard_writer import Packed, Task, pack_shard
from stackgan_dist.storage.folder import Folder
from stackgan_dist.text import PUBLISHED


def pack_split(job: Job, workers: int, max_rejects: float, part: Part) -> None:
    """Pack those shards of `part` that are not there, and finish the split where no other part has any left.

    Raises UserError where too many pictures cannot be used, a shard came to hold one class only, or another pack writes
    there.
    """
    job = dataclasses.replace(job, folders=begin(job))
    if not job.folders:
        return
    receipts = {size: _usable_receipts(job, folder) for size, folder in job.folders.items()}
    tasks = []
    for number, (name, pictures) in enumerate(job.shards.items()):
        missing = tuple((size, folder) for size, folder in job.folders.items() if name not in receipts[size])
        if missing and number % part.parts == part.number:
            tasks.append(_task(job, name, pictures, missing))
    # Those that do not count must not count for another part either, which would finish the set with shards that this
    # one is about to replace.
    for folder in job.folders.values():
        withdraw_receipts(folder, [task.name for task in tasks if folder in dict(task.folders).values()])
    resumed = len(job.shards) - len({name for name in job.shards if any(name not in r for r in receipts.values())})
    if resumed:
        print(f"packing {job.title}: {resumed} of {len(job.shards)} shards are there already", flush=True)

    rejected = list(job.listing.rejected)
    total = sum(len(task.records) for task in tasks)
    started = time.monotonic()
    if tasks:
        try:
            for number, result in run_tasks(pack_shard, tasks, total, workers, job.title):
                rejected += result.rejected
                check_rejected(rejected, job.listing, max_rejects, job.top)
                if result.shards:
                    per_shard = job.made_by["samples_per_shard"]
                    check_classes(result.distinct_classes, job.listing.records, job.split, per_shard)
                _keep(job, tasks[number], result)
        except BaseException:
            if rejected:
                write_rejected(job.top, rejected)
            raise
    seconds = time.monotonic() - started
    print(
        f"packed {job.title}{'' if part == WHOLE else f' part {part.number + 1}/{part.parts}'}: "
        f"{total - len(rejected) + len(job.listing.rejected)} pictures, {len(tasks)} shards at "
        f"{' and '.join(map(str, job.folders))} px, {len(rejected)} rejected, {seconds:.0f} s, "
        f"{total / max(seconds, 1e-9):.0f} img/s -> {job.top}",
        flush=True,
    )
    _finish(job, max_rejects, part)


def _task(job: Job, name: str, pictures: range, folders: tuple[tuple[int, Folder], ...]) -> Task:
    published = job.recipe.text_encoder == PUBLISHED
    return Task(
        source=job.source,
        records=job.listing.records[pictures.start : pictures.stop],
        text_encoder=None if published else job.recipe.text_encoder,
        embeddings=job.listing.embeddings[pictures.start : pictures.stop],
        folders=folders,
        name=name,
        identity=job.identity,
    )


def _usable_receipts(job: Job, folder: Folder) -> dict[str, Receipt]:
    """Receipts whose shard is there; not those of shards with rejected pictures, which may have been mended."""
    there = folder.sizes()
    return {
        name: receipt
        for name, receipt in read_receipts(folder, job.identity).items()
        if receipt.shard is not None and not receipt.rejected and there.get(name) == receipt.shard.bytes
    }


def _keep(job: Job, task: Task, packed: Packed) -> None:
    for size, folder in task.folders:
        receipt = Receipt(
            identity=job.identity,
            shard=packed.shards.get(size),
            text_dim=packed.text_dim,
            classes=tuple(sorted(packed.classes)),
            rejected=packed.rejected,
            enlarged=packed.enlarged.get(size, 0),
        )
        write_receipt(folder, task.name, receipt)


def _finish(job: Job, max_rejects: float, part: Part) -> None:
    """Write the indices if all shards of all parts are there. Raises UserError where another pack writes there."""
    found = {folder: read_receipts(folder, job.identity) for folder in job.folders.values()}
    left = {name for name in job.shards if any(name not in receipts for receipts in found.values())}
    for folder in found:
        check_claim(folder, job.identity)
    if left:
        _leave(job, len(left), part)
        return
    for folder, receipts in found.items():
        there = folder.sizes()
        if any(there.get(shard.name) != shard.bytes for shard in _shards(receipts.values())):
            raise UserError(other_pack(folder))
    rejected = list(job.listing.rejected)
    for name in job.shards:
        rejected += next(iter(found.values()))[name].rejected
    write_rejected(job.top, rejected)
    check_rejected(rejected, job.listing, max_rejects, job.top)
    for size, folder in job.folders.items():
        index = _index(job, size, [found[folder][name] for name in job.shards])
        # Another part may finish at the same time. Its index is this one, and must not be missing for a moment.
        clear(look(folder), keep={INDEX_NAME, *(shard.name for shard in index.shards)})
        folder.write(INDEX_NAME, index.to_bytes())
        if enlarged := sum(receipt.enlarged for receipt in found[folder].values()):
            print(f"{job.title}: {enlarged} pictures are smaller than {size} px and were enlarged", flush=True)
    for folder in job.folders.values():
        release(folder)
    print(
        f"{job.title} is complete: {len(job.listing.records) + len(job.listing.rejected) - len(rejected)} pictures",
        flush=True,
    )


def _leave(job: Job, left: int, part: Part) -> None:
    """End where so many shards are `left`: to other parts, or to nobody, as another one has written the index."""
    open_folders = [folder for folder in job.folders.values() if INDEX_NAME not in folder.names()]
    if not open_folders:
        for folder in job.folders.values():
            release(folder)  # what this part has left there after the other one had finished
        return
    if part == WHOLE:  # all that was missing has been packed, so somebody has taken it away
        raise UserError(
            f"another pack writes to {open_folders[0]} at the same time: it has withdrawn {left} of {len(job.shards)} "
            "shards; wait until it has ended, and pack again"
        )
    print(f"{job.title}: {left} of {len(job.shards)} shards are left to other parts; no index yet", flush=True)


def _shards(receipts: Iterable[Receipt]) -> list[Shard]:
    return [receipt.shard for receipt in receipts if receipt.shard is not None]


def _index(job: Job, size: int, receipts: Sequence[Receipt]) -> Index:
    shards = tuple(_shards(receipts))
    return Index(
        name=job.recipe.name,
        split=job.split,
        image_size=size,
        text_encoder=job.encoder,
        text_dim=receipts[0].text_dim,
        captions_per_image=job.listing.captions_per_image,
        classes=tuple(sorted({name for receipt in receipts for name in receipt.classes})),
        samples=sum(shard.samples for shard in shards),
        shards=shards,
        recipe=job.made_by,
    )
