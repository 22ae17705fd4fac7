"""The benchmarks of the loader and the checkpoint, at a size that only shows that they measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from stackgan_dist.bench import checkpoint, loader


def test_the_loader_s_table_has_every_way(packed: Path) -> None:
    options = loader.Options(
        data=str(packed / "train"), sizes=(76,), batch_size=8, steps=2, repeats=2, step_ms=1.0, memory_gb=0.1
    )
    (table,) = loader.run(options).tables
    assert [row["way"] for row in table.rows] == [
        "pillow", "simplejpeg", "texts in memory", "all in memory", "set on the cpu device",
        "decoding alone",
    ]  # fmt: skip
    for row in table.rows:
        assert row["min s"] <= row["median s"] <= row["max s"]
        assert row["images/s"] > 0
        assert row["waiting, %"] is None or 0 <= row["waiting, %"] <= 100
    assert [row["decoding, % of CPU s"] is None for row in table.rows] == [False, False, False, True, True, False]
    assert table.rows[-1]["decoding, % of CPU s"] == pytest.approx(100)


def test_the_checkpoint_s_table_has_copy_and_save() -> None:
    (table,) = checkpoint.run(checkpoint.Options(megabytes=8, repeats=2, loop_s=0.05)).tables
    *timed, lost = table.rows
    assert len(timed) == 3
    assert all(row["min s"] > 0 for row in timed)
    assert lost["min s"] <= lost["median s"] <= lost["max s"]  # of noise alone it may be below 0
    assert "8 MB of state on cpu" in table.notes[0]
