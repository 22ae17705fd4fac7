"""Protocols beside the paper's: fewer sets at once, ties, several aspects, adaptive pairs, completion codes."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from human_rank.study.studies import make_study

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study.adaptive import evidence, standing, wins_of
from stackgan_dist.human_rank.study.folder import Study, StudyFolder
from stackgan_dist.human_rank.study.order import questions_of, slots_of, task_of, tasks_asked
from stackgan_dist.human_rank.study.protocol import Protocol
from stackgan_dist.human_rank.study.rating import InvalidRankingError, OutOfTurnError, Rating, codes_of
from stackgan_dist.human_rank.study.report import as_csv, as_json, report, tasks_of

STRENGTHS = np.array([2.4, 0.8, -0.8, -2.4])


def _study(protocol: Protocol, **changes: int) -> Study:
    return dataclasses.replace(make_study(**changes), protocol=protocol)


def _rating(tmp_path: Path, study: Study) -> Rating:
    folder = StudyFolder(tmp_path / "study")
    folder.write(study)
    return Rating(folder)


def test_a_study_by_the_papers_protocol_is_the_file_that_it_was(tmp_path: Path) -> None:
    study = make_study()
    content = json.loads(study.to_bytes())
    assert "protocol" not in content
    assert content["schema"] == 1
    folder = StudyFolder(tmp_path)
    folder.write(study)
    assert folder.read() == study
    other = _study(Protocol(at_once=2, aspects=("alignment", "realism")))
    folder.write(other)
    assert json.loads(other.to_bytes())["schema"] == 2
    assert folder.read() == other
    assert folder.read().digest == other.digest != study.digest


def test_the_papers_pages_are_what_they_were() -> None:
    study = make_study(checks=2)
    for position in range(12):
        task = task_of(study, 3, position)
        assert (task.question, list(task.shown)) == (questions_of(study, 3)[position], slots_of(study, 3, position))


def test_all_pairs_are_shown_equally_often_and_on_both_sides() -> None:
    study = _study(Protocol(at_once=2), methods=4, sentences=12, per_rater=12)
    shown = Counter(task_of(study, rater, at).shown for rater in range(20) for at in range(12))
    pairs = Counter(frozenset(pair) for pair in shown.elements())
    assert set(pairs.values()) == {40}  # 240 pages, six pairs
    assert len(shown) == 12
    assert min(shown.values()) > 8


def test_each_aspect_is_asked_about_the_same_sets() -> None:
    study = _study(Protocol(at_once=2, aspects=("alignment", "realism")), methods=3, sentences=6, checks=1, per_rater=6)
    assert tasks_asked(study, 0) == 14
    tasks = [task_of(study, 0, at) for at in range(14)]
    for first, second in zip(tasks[::2], tasks[1::2], strict=True):
        assert first[:2] == second[:2]
        assert {first.aspect, second.aspect} == {"alignment", "realism"}
    assert len({task.aspect for task in tasks[::2]}) == 2  # neither is always first
    (check,) = {task.shown for task in tasks if study.questions[task.question].check}
    assert 0 in check


def test_ties_are_taken_where_they_are_asked_for(tmp_path: Path) -> None:
    rating = _rating(tmp_path, _study(Protocol(ties=True)))
    with rating.votes.transaction():
        link = rating.join()
        turn = rating.turn(link)
        assert turn.ties
        shown = task_of(rating.study, 0, 0).shown
        rating.vote(link, 0, [2, [0, 1]])
        rating.vote(link, 0, [2, [1, 0]])  # the same again
        with pytest.raises(OutOfTurnError):
            rating.vote(link, 0, [2, 0, 1])
        for wrong in ([2, [0]], [[0, 1, 2], []], [0, 1, [1, 2]]):
            with pytest.raises(InvalidRankingError, match="a place, none left out"):
                rating.vote(link, 1, wrong)
        (vote,) = rating.votes.all()
    assert vote.places == ((shown[2],), tuple(sorted(shown[:2])))
    (row,) = json.loads(as_json(rating.study, [vote], tasks_of(rating.study, [vote], {})))["votes"]
    assert row["ranking"] == [f"method {shown[2]}", [f"method {i}" for i in sorted(shown[:2])]]
    strict = _rating(tmp_path / "strict", make_study())
    with strict.votes.transaction(), pytest.raises(InvalidRankingError, match="no ties"):
        strict.vote(strict.join(), 0, [2, [0, 1]])


def test_pandas_reads_the_votes(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    rating = _rating(tmp_path, _study(Protocol(at_once=2, ties=True), methods=3, sentences=4, per_rater=4))
    with rating.votes.transaction():
        link = rating.join()
        for position in range(4):
            rating.vote(link, position, [[0, 1]] if position == 1 else [1, 0])
        votes = rating.votes.all()
    file = tmp_path / "votes.csv"
    file.write_text(as_csv(rating.study, votes, tasks_of(rating.study, votes, {})))
    table = pandas.read_csv(file)
    ranks = table[[f"rank method {i}" for i in range(3)]]
    assert len(table) == 4
    assert (ranks.notna().sum(axis=1) == 2).all()
    assert (ranks.sum(axis=1) == 3).all()
    assert (ranks.iloc[1].dropna() == 1.5).all()
    assert set(table["aspect"]) == {"overall"}


def test_the_report_of_pairs_by_aspect(tmp_path: Path) -> None:
    protocol = Protocol(at_once=2, ties=True, aspects=("alignment", "realism"))
    rating = _rating(tmp_path, _study(protocol, methods=3, sentences=12, per_rater=12))
    random = np.random.default_rng(0)
    with rating.votes.transaction():
        for rater in range(6):
            link = rating.join()
            for position in range(24):
                task = task_of(rating.study, rater, position)
                value = [(1 if task.aspect == "alignment" else -1) * m + random.gumbel() for m in task.shown]
                close = abs(value[0] - value[1]) < 0.2
                better = int(np.argmax(value))
                rating.vote(link, position, [[0, 1]] if close else [better, 1 - better])
        votes = rating.votes.all()
    text = report(rating.study, votes, tasks_of(rating.study, votes, {}), attentive_only=False)
    alignment, realism = text.split("== realism")
    assert "== alignment: Which pictures fit this sentence best" in alignment
    assert "(72 votes)" in alignment
    for part, best, worst in ((alignment, 2, 0), (realism, 0, 2)):
        strengths = part.split("Bradley-Terry")[1].split("preferences")[0]
        assert strengths.index(f"method {best}") < strengths.index(f"method {worst}")


class TestAdaptive:
    PROTOCOL = Protocol(at_once=2, adaptive=True, certainty=0.9, most_per_pair=150)

    def test_the_evidence_is_that_of_the_formula(self) -> None:
        assert evidence(3, 1) == pytest.approx(math.log(2**4 * 6 * 1 / 120))
        assert evidence(0, 0) == 0

    def test_a_fair_coin_seldom_seems_loaded_however_often_one_looks(self) -> None:
        """Ville's inequality: at most 5 % of runs ever reach evidence of 20."""
        random = np.random.default_rng(0)
        reached = 0
        for _ in range(300):
            heads = np.cumsum(random.integers(0, 2, 200))
            reached += any(evidence(h, n - h) >= math.log(20) for n, h in enumerate(heads.tolist(), 1))
        assert reached / 300 <= 0.05

    def test_every_pair_is_heard_first_then_neighbours(self) -> None:
        wins = np.zeros((3, 3))
        assert len(standing(wins, 0.95, 100).open_pairs) == 3
        wins[0, 1] = wins[1, 2] = wins[0, 2] = 3.0
        now = standing(wins, 0.95, 100)
        assert now.order == (0, 1, 2)
        assert set(now.open_pairs) == {(0, 1), (1, 2)}
        wins[0, 1] = wins[1, 2] = 12.0
        assert standing(wins, 0.95, 100).open_pairs == ()

    def test_two_that_are_equal_are_given_up(self) -> None:
        wins = np.array([[0.0, 50.0], [50.0, 0.0]])
        assert standing(wins, 0.95, 100).tied == ((0, 1),)
        assert standing(wins, 0.95, 101).open_pairs == ((0, 1),)

    def _until_clear(self, tmp_path: Path, restart_every: int) -> tuple[Rating, int]:
        study = _study(self.PROTOCOL, methods=4, sentences=30, checks=1, per_rater=25)
        rating = _rating(tmp_path, study)
        random, votes = np.random.default_rng(7), 0
        for rater in range(100):
            with rating.votes.transaction():
                link = rating.join()
            while True:
                with rating.votes.transaction():
                    turn = rating.turn(link)
                    if turn.sentence is None:
                        break
                    check = turn.sentence == study.questions[-1].sentence
                    shown = (tasks := rating.votes.asked()).get((rater, turn.position))
                    shown = task_of(study, rater, turn.position) if check else shown
                    assert shown is not None, tasks
                    value = [(9.0 * (m == 0) if check else STRENGTHS[m]) + random.gumbel() for m in shown.shown]
                    better = int(np.argmax(value))
                    rating.vote(link, turn.position, [better, 1 - better])
                votes += not check
                if votes % restart_every == 0:  # as after a kill: everything is in the file
                    rating.votes.close()
                    rating = Rating(StudyFolder(tmp_path / "study"))
            if turn.position == 0:
                return rating, votes
        raise AssertionError("the order never became clear")

    def test_it_stops_when_the_order_is_clear_with_fewer_votes_than_all_pairs_alike(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        rating, votes = self._until_clear(tmp_path, 40)
        everything = rating.votes.all()
        tasks = tasks_of(rating.study, everything, rating.votes.asked())
        text = report(rating.study, everything, tasks, attentive_only=False)
        assert "the order is clear (90%): method 0 > method 1 > method 2 > method 3" in text
        raters = len({vote.rater for vote in everything})
        assert f"votes by {raters} raters ({raters} finished)" in text  # whoever is asked no more, also halfway
        assert rating.votes.standing(raters - 1) < tasks_asked(rating.study, raters - 1)
        # The same raters, rule and certainty, but every pair asked about in turn.
        random, wins, alike = np.random.default_rng(7), np.zeros((4, 4)), 0
        pairs = [(i, j) for i in range(4) for j in range(i + 1, 4)]
        while standing(wins, 0.9, 10_000).open_pairs:
            first, second = pairs[alike % 6]
            value = STRENGTHS[[first, second]] + random.gumbel(size=2)
            wins[(first, second) if value[0] > value[1] else (second, first)] += 1
            alike += 1
        with capsys.disabled():
            print(f"\nthe order of 4 methods is clear after {votes} adaptive votes, after {alike} on all pairs alike")
        assert votes < alike
        asked = wins_of(rating.study, everything, rating.votes.asked(), "overall")
        assert asked.sum() == votes

    def test_a_restart_changes_nothing(self, tmp_path: Path) -> None:
        one, first = self._until_clear(tmp_path / "a", 3)
        two, second = self._until_clear(tmp_path / "b", 10**9)
        assert first == second
        assert one.votes.asked() == two.votes.asked()
        assert [vote.places for vote in one.votes.all()] == [vote.places for vote in two.votes.all()]

    def test_a_vote_that_is_taken_back_is_asked_again(self, tmp_path: Path) -> None:
        rating = _rating(tmp_path, _study(self.PROTOCOL, methods=3, sentences=5, per_rater=5))
        with rating.votes.transaction():
            link = rating.join()
            before = rating.turn(link)
            assert rating.picture(link, 1, 0) is None  # nobody knows yet
            rating.vote(link, 0, [1, 0])
            assert rating.undo(link, 0) == before


def test_completion_codes(tmp_path: Path) -> None:
    study = _study(Protocol(at_once=2, completion="unique"), methods=2, sentences=2, per_rater=2)
    rating = _rating(tmp_path, study)
    with rating.votes.transaction():
        links = [rating.join() for _ in range(3)]
        codes = []
        for link in links[:2]:
            assert rating.turn(link).code is None
            rating.vote(link, 0, [0, 1])
            codes.append(rating.vote(link, 1, [1, 0]).code)
        rating.vote(links[2], 0, [0, 1])
        assert codes_of(study, rating.votes) == list(enumerate(codes))
    assert codes[0] != codes[1]
    assert all(code is not None and len(code) == 10 for code in codes)
    fixed = _rating(tmp_path / "fixed", _study(Protocol(completion="C1XYZ"), methods=2, sentences=1, per_rater=1))
    with fixed.votes.transaction():
        assert fixed.vote(fixed.join(), 0, [0, 1]).code == "C1XYZ"


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        (Protocol(at_once=4), "--at-once is 4; give from 2 to 3"),
        (Protocol(at_once=1), "--at-once is 1"),
        (Protocol(adaptive=True), "--adaptive asks about pairs; give --at-once 2"),
        (Protocol(aspects=("realism", "realism")), "each once"),
        (Protocol(aspects=()), "one or more"),
    ],
)
def test_refusals(protocol: Protocol, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        protocol.check(3)
