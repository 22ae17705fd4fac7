"""scores.jsonl: rows that are added, and those that a kill or a full disk has cut off."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stackgan_dist.runs.score_rows import append_score, recorded_scores
from stackgan_dist.storage.folder import Folder


@pytest.mark.parametrize("memory", [False, True], ids=["folder", "store"])
def test_a_row_that_was_cut_off(tmp_path: Path, capsys: pytest.CaptureFixture[str], memory: bool) -> None:
    run = f"memory://{tmp_path.name}" if memory else str(tmp_path)
    assert recorded_scores(run, {}) == {}
    append_score(run, {"score": "inception", "step": 5, "mean": float("nan")})
    append_score(run, {"score": "kernel", "step": 5})
    folder = Folder.at(run)
    whole = folder.read("scores.jsonl")
    folder.write("scores.jsonl", whole + b'{"score": "frechet", "st')
    assert set(recorded_scores(run, {"step": 5})) == {"inception", "kernel"}
    file = folder.url_of("scores.jsonl")
    assert capsys.readouterr().err == f"note: line 3 of {file} is no row of a score, and is passed over\n"
    append_score(run, {"score": "frechet", "step": 5})
    assert set(recorded_scores(run, {"step": 5})) == {"inception", "kernel", "frechet"}
    lines = folder.read("scores.jsonl").splitlines()
    assert b"\n".join(lines[:2]) + b"\n" == whole
    assert json.loads(lines[3])["score"] == "frechet"


@pytest.mark.parametrize("line", ["[1]", '"words"', "{}", "3"])
def test_what_is_no_row(tmp_path: Path, line: str) -> None:
    (tmp_path / "scores.jsonl").write_text(f'{line}\n\n{{"score": "kernel"}}\n')
    assert set(recorded_scores(tmp_path, {})) == {"kernel"}
