"""Following a run that trains elsewhere: its checkpoints, each one once, as they are committed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes
from stackgan_dist.errors import UserError
from stackgan_dist.runs.checkpoint import (
    FoundCheckpoint,
    UnreadableError,
    checkpoint_of,
    committed_steps,
    read_checkpoint,
)
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.storage.retry import StoreError


def new_checkpoints(
    folder: RunFolder, is_known: Callable[[FoundCheckpoint], bool], poll_s: float, ranks: Ranks
) -> Iterator[FoundCheckpoint]:
    """The checkpoints of a run, oldest first, as they appear, until the run is done and none is left.

    Rank 0 looks every `poll_s` seconds and sends what it found, so that no rank waits longer than that for a peer, all
    have the same bytes without sharing a disk, and a checkpoint that is removed while it is being scored does not
    matter. Those that are damaged, or went before they could be read, are reported and passed over, like those that
    `is_known` (asked on rank 0) knows.
    """
    seen: set[int] = set()
    while True:
        found, is_done = _look(folder, is_known, seen) if ranks.is_main else (None, False)
        news = {"url": found.url, "step": found.step} if found else {"done": is_done}
        sent = broadcast_bytes(json.dumps(news).encode(), ranks)
        assert sent is not None
        received = json.loads(sent)
        if "step" in received:
            data = broadcast_bytes(found.data if found else None, ranks)
            assert data is not None
            yield FoundCheckpoint(received["url"], received["step"], data)
        elif received["done"]:
            return
        else:
            time.sleep(poll_s)


def _look(
    folder: RunFolder, is_known: Callable[[FoundCheckpoint], bool], seen: set[int]
) -> tuple[FoundCheckpoint | None, bool]:
    """The oldest checkpoint not `seen` before, which it is from now on, and whether the run is done."""
    is_done = folder.root.exists("DONE")  # before the list: the last checkpoint is older than the marker
    for step in committed_steps(folder.checkpoints):
        if step in seen:
            continue
        seen.add(step)
        try:
            found = read_checkpoint(checkpoint_of(folder.checkpoints, step))
            if not is_known(found):
                return found, is_done
        except (StoreError, UnreadableError):  # nothing is known about it; passed over, it would never be scored
            raise
        except UserError as error:
            print(f"passed over: {error}", flush=True)
    return None, is_done
