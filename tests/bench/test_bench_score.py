"""The benchmark of the scores, at a size that only shows that it measures."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_classifier import small_classifier

from stackgan_dist import overlap
from stackgan_dist.bench import score
from stackgan_dist.errors import UserError


def test_the_table_has_both_ways_and_their_parts(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "cores_of_this_rank", lambda: 2)
    options = score.Options(width=4, batch=4, batches=2, repeats=2, data=str(packed), memory=False)
    with small_classifier():
        (table,) = score.run(options).tables
    rows = {row["way"]: row for row in table.rows}
    assert list(rows) == ["generating alone", "measuring alone", "in turns", "overlapped"]
    for row in rows.values():
        assert row["min s"] <= row["median s"] <= row["max s"]
        assert row["images/s"] == pytest.approx(8 / row["median s"])
        assert 0 < row["share of peak"] < 1
    assert rows["in turns"]["times in turns"] == 1
    parts = rows["generating alone"]["GFLOP"] + rows["measuring alone"]["GFLOP"]
    assert parts == pytest.approx(rows["overlapped"]["GFLOP"])
    assert "equal bit for bit" in table.notes[0]


def test_peaks_are_of_the_ways_themselves(packed: Path) -> None:
    options = score.Options(width=4, batch=2, data=str(packed))
    with small_classifier():
        assert score._peak_of("overlapped", options, str(packed), 1) > 1e8


def test_counts_below_one_are_refused() -> None:
    with pytest.raises(UserError, match="--batches is 0"):
        score.run(score.Options(batches=0))
