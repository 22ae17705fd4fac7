"""What a rater may do: join, see the next question, rank it, take the last vote back. Knows nothing of the web."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackgan_dist.human_rank.study.folder import StudyFolder
from stackgan_dist.human_rank.study.order import questions_of, slots_of
from stackgan_dist.human_rank.study.votes import Votes


class UnknownRaterError(Exception):
    """No rater has this link."""


class OutOfTurnError(Exception):
    """The vote or undo is not about the question that the rater is at; another tab was quicker, or it is a forgery."""


class InvalidRankingError(Exception):
    """Not a ranking of this question's sets: its text says why."""


@dataclass(frozen=True)
class Turn:
    """What a rater is asked next."""

    position: int
    """Votes given so far."""
    total: int
    """Votes that are asked for; when `position` is as large, the rater is done."""
    sentence: str | None
    """None when the rater is done."""
    sets: int
    """How many sets of pictures are ranked."""
    images: int
    """Pictures in a set, one row."""


class Rating:
    """The study, its votes, and the rules between them. Every method must run inside `votes.transaction()`.

    Raises UserError when there is no study in the folder, or its votes cannot be used.
    """

    def __init__(self, folder: StudyFolder) -> None:
        self._folder = folder
        self.study = folder.read()
        self.votes = Votes(folder.votes_file, self.study.digest)

    def join(self) -> str:
        """A new rater's link."""
        return self.votes.add_rater()

    def turn(self, link: str) -> Turn:
        """Where the rater is; UnknownRaterError for a link that nobody has."""
        return self._turn(self._rater(link))

    def picture(self, link: str, position: int, slot: int) -> Path | None:
        """The pictures that stand at `slot` of a rater's question `position`; None when there is no such place."""
        rater = self._rater(link)
        questions = questions_of(self.study, rater)
        if not (0 <= position < len(questions) and 0 <= slot < len(self.study.methods)):
            return None
        return self._folder.picture_file(questions[position], slots_of(self.study, rater, position)[slot])

    def vote(self, link: str, position: int, slots: Sequence[int]) -> Turn:
        """Rank the sets of question `position`, `slots` from best to worst, and go on to the next.

        The same vote again is no error and counts once: its answer may have been lost on the way.

        Raises:
            UnknownRaterError: nobody has this link.
            InvalidRankingError: a set is missing, named twice (a tie) or unknown.
            OutOfTurnError: the rater is elsewhere.
        """
        rater = self._rater(link)
        places = len(self.study.methods)
        if sorted(slots) != list(range(places)):
            raise InvalidRankingError(f"give each of the {places} sets a place of its own: no ties, none left out")
        order = slots_of(self.study, rater, position)
        ranking = tuple(order[slot] for slot in slots)
        turn = self._turn(rater)
        if position != turn.position or position == turn.total:
            if self.votes.ranking(rater, position) == ranking:
                return turn
            raise OutOfTurnError
        self.votes.add(rater, position, questions_of(self.study, rater)[position], ranking)
        return self._turn(rater)

    def undo(self, link: str, position: int) -> Turn:
        """Take back the last vote, which is the one at `position`; OutOfTurnError when it is not."""
        rater = self._rater(link)
        if position < 0 or position != self.votes.standing(rater) - 1:
            raise OutOfTurnError
        self.votes.take_back(rater, position)
        return self._turn(rater)

    def _rater(self, link: str) -> int:
        rater = self.votes.rater(link)
        if rater is None:
            raise UnknownRaterError
        return rater

    def _turn(self, rater: int) -> Turn:
        questions = questions_of(self.study, rater)
        position = self.votes.standing(rater)
        done = position >= len(questions)
        return Turn(
            position=position,
            total=len(questions),
            sentence=None if done else self.study.questions[questions[position]].sentence,
            sets=len(self.study.methods),
            images=self.study.images,
        )
