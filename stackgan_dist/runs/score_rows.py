"""The scores of a run, a row of JSON each, in its folder."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch

from stackgan_dist.devices import arithmetic_of, default_device
from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import Folder, FolderLike
from stackgan_dist.storage.retry import StoreError

_NAME = "scores.jsonl"


def append_score(run: FolderLike, row: dict[str, Any]) -> str:
    """Add a score, with everything that identifies it, to scores.jsonl in the folder `run`; returns the file.

    With what arithmetic it was made is added, which is no part of its identity. Raises UserError, with the score, when
    it cannot be written there.
    """
    device = torch.device(default_device())  # which process_group takes
    row = {**row, "arithmetic": arithmetic_of(device)}
    # JSON has no NaN.
    known = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
    folder, line = Folder.at(run), json.dumps(known, allow_nan=False)
    file = folder.url_of(_NAME)
    try:
        folder.append_line(_NAME, line)
    except (OSError, StoreError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot write to {file}: {reason}; the score is not lost:\n{line}") from error
    return file


def recorded_scores(run: FolderLike, identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The newest row of each score in scores.jsonl in the folder `run` with this `identity`, by the score's name.

    A row that was cut off, by a kill or a full disk, is passed over with a note: its score is one that was not made.
    """
    folder = Folder.at(run)
    try:
        lines = folder.read(_NAME).splitlines()
    except FileNotFoundError:
        return {}
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        if row := _row(line):
            rows.append(row)
        elif line.strip():
            file = folder.url_of(_NAME)
            print(
                f"note: line {number} of {file} is no row of a score, and is passed over", file=sys.stderr, flush=True
            )
    return {row["score"]: row for row in rows if all(row.get(name) == value for name, value in identity.items())}


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "score" in row else None
