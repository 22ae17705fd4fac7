"""Scores of a run by its commands, in this process or on ranks, and what they have to agree in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from distributed.forked import run_forked
from small_classifier import open_door_with_it

from stackgan_dist.colour_agreement import __main__ as colour_agreement
from stackgan_dist.runs.folder import find_run
from stackgan_dist.scores import __main__ as scores

FEW_PICTURES = ["--diversity-sentences", 5, "--diversity-pictures", 2]
"""Of the scores that compare the pictures of one sentence; by ones of four pictures, several batches for two ranks."""


def rows_of(run: Path) -> list[dict[str, Any]]:
    """Those of its scores.jsonl."""
    return [json.loads(line) for line in (run / "scores.jsonl").read_text().splitlines()]


def score(patch: pytest.MonkeyPatch, module: Any, run: Path, *arguments: object) -> dict[str, Any]:
    """The row that one process adds."""
    folder = find_run(str(run)).path
    before = len(rows_of(folder)) if (folder / "scores.jsonl").exists() else 0
    few = FEW_PICTURES if module in (scores, colour_agreement) else []
    patch.setattr("sys.argv", ["score", str(run), *map(str, [*arguments, *few])])
    module.main()
    rows = rows_of(folder)
    return _merged(rows[before:]) if module is scores else rows[-1]


def _merged(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row as it is; of several, what each has of its own goes by the score's name, and another judge's."""
    if len(rows) == 1:
        return rows[0]
    judges = {row["classifier"]: f"{row['classifier']} " for row in rows} | {"efficientnet-lite0": ""}
    return {
        f"{judges[row['classifier']]}{row['score']} {name}": value
        for row in rows
        for name, value in row.items()
        if name != "time"
    }


def score_on_ranks(ranks: int, module: str, run: Path, log: Path, *arguments: object) -> dict[str, Any]:
    """The row, or rows in one, that a command adds on so many ranks."""
    before = len(rows_of(run))
    few = FEW_PICTURES if module in ("scores", "colour_agreement") else []
    run_forked(open_door_with_it, ranks, module, str(run), *map(str, [*arguments, *few]), log=log)
    added = rows_of(run)[before:]
    assert module == "scores" or len(added) == 1  # rank 0 alone
    return _merged(added)


def assert_same_score(one: dict[str, Any], many: dict[str, Any]) -> None:
    """Equal in all but the time, to the last digits of a sum in another order."""
    assert one.keys() == many.keys()
    for name in one.keys() - {"time"}:
        if isinstance(one[name], float | list) and not name.endswith("notes"):
            assert many[name] == pytest.approx(one[name], rel=1e-9, abs=0), name
        else:
            assert many[name] == one[name], name
