"""Rows of pictures that other systems generated, which stand below those of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.errors import UserError
from stackgan_dist.runs.score_rows import recorded_scores
from stackgan_dist.scores.protocol import ScoreProtocol


@dataclass(frozen=True)
class Beside:
    """What `scores --pictures` said of a set of pictures."""

    name: str
    image_size: int
    scores: Mapping[str, dict[str, Any]]
    """Rows of scores.jsonl by the score's name, by the table's classifier."""
    differing: tuple[str, ...]
    """What makes its numbers incomparable with the table's."""

    @property
    def reading(self) -> str:
        """For below the table."""
        if not self.differing:
            return f"{self.name}: pictures of another system, scored as these rows are: comparable with them."
        return f"{self.name}: pictures of another system, not comparable with these rows ({', '.join(self.differing)})."


def read_beside(
    folders: Sequence[str], weights_sha256: str | None, test: PackedSet, protocol: ScoreProtocol
) -> list[Beside]:
    """The newest scores in each of the `folders`, by the classifier with these weights.

    Raises UserError for a folder without any.
    """
    found = []
    for folder in folders:
        scores = recorded_scores(folder, {"weights_sha256": weights_sha256})
        if "inception" not in scores or "name" not in scores["inception"]:
            raise UserError(
                f"--beside {folder} has no scores of pictures by this table's classifier; make them with "
                "`stackgan scores --pictures FOLDER --against DATA --out FOLDER --classifier FILE`"
            )
        row = scores["inception"]
        theirs = row["protocol"]
        differing = []
        if row["against_digest"] != test.index.digest:
            differing.append("other real pictures, or another size of them")
        if theirs["samples"] != protocol.samples:
            differing.append(f"{theirs['samples']:,} pictures, not {protocol.samples:,}")
        decisive = ("splits", "kernel_samples", "kernel_block", "neighbour_samples")
        if any(theirs[name] != getattr(protocol, name) for name in decisive):
            differing.append("other splits, blocks or neighbours")
        found.append(Beside(row["name"], row["image_size"], scores, tuple(differing)))
    return found
