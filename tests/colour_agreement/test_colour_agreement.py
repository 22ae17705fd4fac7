"""What colour_agreement counts of a run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from scored import score

from stackgan_dist.colour_agreement import __main__ as colour_agreement


@pytest.fixture
def run(gaudy_stages: Path) -> Path:
    """A folder with runs of both stages."""
    return gaudy_stages


def test_colour_agreement_counts_what_captions_ask_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = score(monkeypatch, colour_agreement, run / "stage1", "--samples", 60)
    assert row["score"] == "colour agreement"
    assert row["samples"] == 60
    shares = {part: row[part] for part in ("back", "wing", "belly", "crown", "beak") if part in row}
    assert shares
    assert all(0 <= share < 0.5 and not math.isnan(share) for share in shares.values())  # five steps teach little


def test_colour_agreement_says_how_sharp_the_pictures_are(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage, names in (("stage1", {"generated", "real"}), ("stage2", {"generated", "real", "Stage-I enlarged"})):
        row = score(monkeypatch, colour_agreement, run / stage, "--samples", 3)
        steps = {name.removeprefix("steps of "): pair for name, pair in row.items() if name.startswith("steps of ")}
        assert steps.keys() == names
        assert all(0 < rest < outlines < 100 for outlines, rest in steps.values())


def test_colour_agreement_counts_birds_with_stray_parts(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = score(monkeypatch, colour_agreement, run / "stage1", "--samples", 8)
    assert 0 <= row["stray parts of generated"] <= 1
    assert row["stray parts of real"] == 0
    assert f"generated {row['stray parts of generated']:.1%}, real 0.0%" in capsys.readouterr().out


def test_colour_agreement_says_how_different_the_pictures_of_one_sentence_are(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = score(monkeypatch, colour_agreement, run / "stage1", "--samples", 3)
    assert 0 < row["diversity"] < 1
    assert 0 < row["diversity of real"] < 1
    said = f"{row['diversity']:.3f}, of real pictures of one class {row['diversity of real']:.3f}"
    assert said in capsys.readouterr().out
