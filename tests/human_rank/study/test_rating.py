"""The rules between raters and votes: in turn, no ties, once, and nothing ever deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study import votes as votes_module
from stackgan_dist.human_rank.study.folder import Study, StudyFolder
from stackgan_dist.human_rank.study.order import questions_of, slots_of
from stackgan_dist.human_rank.study.rating import InvalidRankingError, OutOfTurnError, Rating, UnknownRaterError
from stackgan_dist.human_rank.study.votes import Votes


@pytest.fixture
def folder(study: Study, tmp_path: Path) -> StudyFolder:
    folder = StudyFolder(tmp_path / "study")
    folder.write(study)
    return folder


@pytest.fixture
def rating(folder: StudyFolder) -> Iterator[Rating]:
    rating = Rating(folder)
    with rating.votes.transaction():
        yield rating


def test_a_study_survives_its_file(study: Study, folder: StudyFolder) -> None:
    assert folder.read() == study
    assert folder.read().digest == study.digest


def test_a_rater_ranks_everything(rating: Rating, study: Study) -> None:
    link = rating.join()
    asked = questions_of(study, 0)
    for position in range(12):
        turn = rating.turn(link)
        assert (turn.position, turn.total, turn.sets, turn.images) == (position, 12, 3, 5)
        assert turn.sentence == study.questions[asked[position]].sentence
        rating.vote(link, position, [2, 0, 1])
    assert rating.turn(link).sentence is None
    votes = rating.votes.all()
    assert [vote.question for vote in votes] == asked
    for vote in votes:
        slots = slots_of(study, 0, vote.position)
        assert vote.ranking == (slots[2], slots[0], slots[1])  # methods, whatever place they stood in


def test_raters_have_links_of_their_own(rating: Rating, folder: StudyFolder) -> None:
    one, two = rating.join(), rating.join()
    assert one != two
    assert min(len(one), len(two)) >= 22  # 128 bits in base 64
    rating.vote(one, 0, [0, 1, 2])
    assert (rating.turn(one).position, rating.turn(two).position) == (1, 0)
    stored = b"".join(file.read_bytes() for file in folder.path.glob("votes.sqlite*"))
    assert one.encode() not in stored
    with pytest.raises(UnknownRaterError):
        rating.turn(one[:-1])


@pytest.mark.parametrize("slots", [[], [0, 1], [0, 0, 1], [0, 1, 3], [0, 1, -1], [0, 1, 2, 2]])
def test_ties_and_gaps_are_refused(rating: Rating, slots: list[int]) -> None:
    link = rating.join()
    with pytest.raises(InvalidRankingError, match="no ties, none left out"):
        rating.vote(link, 0, slots)
    assert rating.votes.all() == []


def test_the_same_vote_again_counts_once_and_another_is_refused(rating: Rating) -> None:
    link = rating.join()
    rating.vote(link, 0, [0, 1, 2])
    assert rating.vote(link, 0, [0, 1, 2]).position == 1
    with pytest.raises(OutOfTurnError):
        rating.vote(link, 0, [2, 1, 0])
    with pytest.raises(OutOfTurnError):
        rating.vote(link, 2, [0, 1, 2])
    assert len(rating.votes.all()) == 1


def test_nothing_is_ranked_beyond_the_end(rating: Rating) -> None:
    link = rating.join()
    for position in range(12):
        rating.vote(link, position, [0, 1, 2])
    with pytest.raises(OutOfTurnError):
        rating.vote(link, 12, [0, 1, 2])


def test_undo_takes_back_the_last_vote_and_keeps_it_on_record(rating: Rating) -> None:
    link = rating.join()
    with pytest.raises(OutOfTurnError):
        rating.undo(link, 0)
    for position in range(2):
        rating.vote(link, position, [0, 1, 2])
    with pytest.raises(OutOfTurnError):
        rating.undo(link, 0)
    assert rating.undo(link, 1).position == 1
    with pytest.raises(OutOfTurnError):
        rating.undo(link, 1)  # the other tab's click
    rating.vote(link, 1, [2, 1, 0])
    votes = rating.votes.all()
    assert [(vote.position, vote.undone is None) for vote in votes] == [(0, True), (1, False), (1, True)]


def test_two_standing_votes_are_impossible_in_the_file_itself(rating: Rating) -> None:
    rating.join()
    rating.votes.add(0, 0, 0, [[0], [1], [2]])
    with pytest.raises(sqlite3.IntegrityError):
        rating.votes.add(0, 0, 0, [[0], [1], [2]])


def test_a_broken_transaction_leaves_nothing(folder: StudyFolder, study: Study) -> None:
    votes = Votes(folder.votes_file, study.digest)

    def broken() -> None:
        with votes.transaction():
            votes.add_rater()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    with votes.transaction():
        assert votes.rater(votes.add_rater()) == 0


def test_commits_are_synced_to_the_disk(folder: StudyFolder, study: Study) -> None:
    votes = Votes(folder.votes_file, study.digest)
    assert votes._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert votes._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_votes_on_another_study_are_refused(folder: StudyFolder, study: Study) -> None:
    Votes(folder.votes_file, study.digest).close()
    with pytest.raises(UserError, match="another study"):
        Votes(folder.votes_file, "0" * 64)


def test_a_damaged_file_of_votes(folder: StudyFolder, study: Study) -> None:
    folder.votes_file.write_bytes(b"no database at all, but long enough to be taken for one" * 20)
    with pytest.raises(UserError, match=r"cannot use .*votes\.sqlite"):
        Votes(folder.votes_file, study.digest)


def test_a_lock_that_is_released_while_it_is_looked_at(
    folder: StudyFolder, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def released(lock: Path) -> bool:
        lock.rmdir()
        return False

    monkeypatch.setattr(votes_module, "has_record_locks", lambda folder: False)
    monkeypatch.setattr(votes_module, "is_fresh", released)
    folder.votes_file.with_name("votes.sqlite.lock").mkdir()
    Votes(folder.votes_file, study.digest).close()


def test_no_study_and_a_damaged_one(tmp_path: Path, folder: StudyFolder) -> None:
    with pytest.raises(UserError, match="human_rank build"):
        StudyFolder(tmp_path / "nowhere").read()
    folder.study_file.write_text('{"schema": 9}')
    with pytest.raises(UserError, match="schema 9"):
        folder.read()
