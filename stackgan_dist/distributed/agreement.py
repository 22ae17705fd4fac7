"""Whether all ranks were started for the same work: found out before the first step, while it costs nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import torch

from stackgan_dist.distributed.collectives import sum_over_ranks
from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes, explained_peer_loss
from stackgan_dist.errors import RankError, UserError


def check_agreement(facts: Mapping[str, Any], ranks: Ranks) -> None:
    """Compare `facts`, JSON values by name, with those of rank 0; every rank has to call it.

    Raises RankError on the ranks that differ, with the names and both values, and UserError on all others, so that none
    waits for a rank that has ended.
    """
    if not ranks.distributed:
        return
    with explained_peer_loss("while comparing what the ranks were started with"):
        sent = broadcast_bytes(json.dumps(dict(facts)).encode() if ranks.is_main else None, ranks)
        assert sent is not None
        theirs, ours = json.loads(sent), json.loads(json.dumps(dict(facts)))
        changed = [
            f"{name}: {ours.get(name)} here, {theirs.get(name)} on rank 0"
            for name in sorted({*ours, *theirs})
            if ours.get(name) != theirs.get(name)
        ]
        differing = torch.tensor([float(bool(changed))])
        sum_over_ranks(differing, ranks)
    if changed:
        raise RankError(
            f"this rank was started for something else than rank 0 ({'; '.join(changed)}); start all ranks with the "
            "same command, data and version"
        )
    if differing:
        raise UserError(
            f"{int(differing)} of {ranks.world_size} ranks were started for something else than rank 0; what differs "
            "is in their own messages. Start all ranks with the same command, data and version"
        )


@cache
def code_digest(*rooms: str) -> str:
    """Of the package's own source, or of these folders of it: two versions with the same number are still two."""
    digest = hashlib.sha256()
    top = files("stackgan_dist")
    pending = [top / room for room in rooms] or [top]
    while pending:
        for entry in sorted(pending.pop().iterdir(), key=lambda each: each.name):
            if entry.is_dir():
                pending.append(entry)
            elif entry.name.endswith(".py"):
                digest.update(entry.name.encode() + entry.read_bytes())
    return digest.hexdigest()[:16]
