"""What is printed and exported about a handful of votes."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import sys
from pathlib import Path

import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank import __main__ as human_rank
from stackgan_dist.human_rank.study.folder import Study, StudyFolder
from stackgan_dist.human_rank.study.order import slots_of
from stackgan_dist.human_rank.study.report import as_csv, as_json, report, tasks_of
from stackgan_dist.human_rank.study.votes import Vote, Votes

TIME = "2026-01-02T03:04:05.678+00:00"


def _vote(rater: int, position: int, question: int, *ranking: int, undone: str | None = None) -> Vote:
    return Vote(rater, position, question, tuple((method,) for method in ranking), TIME, undone)


@pytest.fixture
def votes() -> list[Vote]:
    """Rater 0 is consistent, rater 1 mostly agrees and has failed a check (questions 10 and 11)."""
    return [
        *(_vote(0, i, i, 2, 1, 0) for i in range(6)),
        _vote(0, 6, 10, 0, 1, 2),
        *(_vote(1, i, i, 2, 0, 1) for i in range(6)),
        _vote(1, 6, 10, 1, 0, 2),
        _vote(1, 7, 7, 0, 1, 2, undone=TIME),
    ]


def test_the_report(study: Study, votes: list[Vote]) -> None:
    text = report(study, votes, tasks_of(study, votes, {}), attentive_only=False)
    assert "12 votes by 2 raters (0 finished) on 6 of 10 sentences" in text
    lines = text.splitlines()
    ranks = [line.split("±")[0].strip() for line in lines if line.strip().startswith("method ") and "px" in line]
    assert ranks == ["method 2  1.00", "method 0  2.50", "method 1  2.50"]
    assert "GAN-INT-CLS 2.81 ± 0.03, GAWWN 1.99 ± 0.04, StackGAN 1.37 ± 0.02 (cub, Table 1" in text
    # Two judges, rank sums 2, 5, 5: S = 6, W = 12 * 6 / (4 * 24).
    assert "on a sentence   0.75, mean of 6 with two raters or more (chance 0.50)" in text
    assert "method 0 before method 2: 0.0%; 0 against 6, p = 0.031, corrected 0.094" in text
    assert "method 0 before method 1: 50.0%; 0 against 0, p = 1.000, corrected 1.000" in text
    assert "attention checks: 1 of 2 raters passed all they met" in text
    assert "rater 1 passed 0 of 1 (counted all the same" in text


def test_raters_who_do_not_look_can_be_left_out(study: Study, votes: list[Vote]) -> None:
    text = report(study, votes, tasks_of(study, votes, {}), attentive_only=True)
    assert "6 votes by 1 raters" in text
    assert "method 2  1.00 ± 0.00; ± unknown" in text
    assert "no sentence has two raters yet" in text


def test_nothing_to_report(study: Study, votes: list[Vote]) -> None:
    for kept in ([], votes[6:7], votes[-1:]):
        with pytest.raises(UserError, match="no vote to report yet"):
            report(study, kept, tasks_of(study, kept, {}), attentive_only=False)


def test_other_data_than_the_papers(study: Study, votes: list[Vote]) -> None:
    painted = dataclasses.replace(study, data="painted")
    text = report(painted, votes, tasks_of(painted, votes, {}), attentive_only=False)
    assert "not comparable, the paper has none on 'painted'" in text


def test_exports_hold_every_vote(study: Study, votes: list[Vote]) -> None:
    tasks = tasks_of(study, votes, {})
    rows = list(csv.DictReader(io.StringIO(as_csv(study, votes, tasks))))
    content = json.loads(as_json(study, votes, tasks))
    assert len(rows) == len(content["votes"]) == len(votes)
    assert content["digest"] == study.digest
    assert rows[0]["ranking"] == "method 2 > method 1 > method 0"
    assert rows[0]["shown"] == " > ".join(f"method {m}" for m in slots_of(study, 0, 0))
    assert content["votes"][6]["ranking"] == ["real", "noise", "noise"]
    assert [row["undone"] for row in rows] == [""] * 14 + [TIME]
    assert rows[0]["time"] == TIME


def _report(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["human_rank", "report", *map(str, arguments)])
    try:
        human_rank.main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_no_file_of_a_study_is_replaced_by_a_report(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = StudyFolder(tmp_path / "S"), StudyFolder(tmp_path / "other")
    for folder in folders:
        folder.write(study)
        folder.pictures.mkdir()
        folder.picture_file(0, 0).write_bytes(b"picture")
        folder.votes_file.write_bytes(b"votes")
        folder.token_file.write_bytes(b"token")
    (tmp_path / "link").symlink_to(tmp_path / "S")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for flag, file in (
        ("--json", "S/study.json"),
        ("--csv", "S/votes.sqlite"),
        ("--csv", "S/votes.sqlite-wal"),
        ("--csv", "S/../S/token"),
        ("--csv", "link/Study.json"),
        ("--csv", f"file://{tmp_path}/S/study.json"),
        ("--csv", "S/pictures/00000-0.png"),
        ("--json", "other/study.json"),
    ):
        assert _report(monkeypatch, "S", flag, file) == 2, file
        assert f"{flag} {file} is a file of the study in {tmp_path}/" in capsys.readouterr().err
    assert _report(monkeypatch, "S", "--csv", "a", "--json", "./a") == 2
    assert "--csv and --json both name a; give two names" in capsys.readouterr().err
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}


def test_reports_may_lie_in_the_study_and_be_written_again(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = StudyFolder(tmp_path / "S")
    folder.write(study)
    Votes(folder.votes_file, study.digest)
    for _ in range(2):
        assert _report(monkeypatch, folder.path, "--csv", folder.path / "votes.csv", "--json", tmp_path / "S.json") == 2
        assert "no vote to report yet" in capsys.readouterr().err  # which is found out when they are written
    assert json.loads((tmp_path / "S.json").read_text())["digest"] == study.digest
    assert (folder.path / "votes.csv").exists()
