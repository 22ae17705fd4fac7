"""What a rater may do: join, see the next page, rank it, take the last vote back. Knows nothing of the web."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stackgan_dist.human_rank.study.adaptive import next_task, pressing
from stackgan_dist.human_rank.study.folder import Study, StudyFolder
from stackgan_dist.human_rank.study.order import Task, questions_of, task_of, tasks_asked
from stackgan_dist.human_rank.study.protocol import QUESTIONS, UNIQUE_CODES
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
    prompt: str | None
    """What is asked about them."""
    ties: bool
    """Whether sets may share a place."""
    code: str | None
    """When the rater is done: what a crowd platform wants to be told, where the study has that."""


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
        """The pictures that stand at `slot` of a rater's page `position`; None when there is no such place.

        What an adaptive study asks after the page that the rater is at is not known yet.
        """
        rater = self._rater(link)
        if not (0 <= position < tasks_asked(self.study, rater) and 0 <= slot < self.study.at_once):
            return None
        task = self._task(rater, position)
        return None if task is None else self._folder.picture_file(task.question, task.shown[slot])

    def vote(self, link: str, position: int, slots: Sequence[int | Sequence[int]]) -> Turn:
        """Rank the sets of page `position`, `slots` from best to worst, and go on to the next.

        Slots that share a place stand in a list of their own. The same vote again is no error and counts once: its
        answer may have been lost on the way.

        Raises:
            UnknownRaterError: nobody has this link.
            InvalidRankingError: a set is missing, named twice or unknown, or tied where ties are not asked for.
            OutOfTurnError: the rater is elsewhere.
        """
        rater = self._rater(link)
        places = [[slot] if isinstance(slot, int) else list(slot) for slot in slots]
        sets, ties = self.study.at_once, self.study.protocol.ties
        tied = any(len(place) != 1 for place in places)
        if (
            sorted(slot for place in places for slot in place) != list(range(sets))
            or (tied and not ties)
            or [] in places
        ):
            rule = "a place, none left out" if ties else "a place of its own: no ties, none left out"
            raise InvalidRankingError(f"give each of the {sets} sets {rule}")
        turn = self._turn(rater)
        task = self._task(rater, position) if position <= min(turn.position, turn.total - 1) else None
        if task is None:
            raise OutOfTurnError
        ranking = tuple(tuple(sorted(task.shown[slot] for slot in place)) for place in places)
        if position != turn.position:
            if self.votes.places(rater, position) == ranking:
                return turn
            raise OutOfTurnError
        self.votes.add(rater, position, task.question, ranking)
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
        position, total = self.votes.standing(rater), tasks_asked(self.study, rater)
        task = self._task(rater, position, choose=True) if position < total else None
        return Turn(
            position=position,
            total=total if task else position,
            sentence=None if task is None else self.study.questions[task.question].sentence,
            sets=self.study.at_once,
            images=self.study.images,
            prompt=None if task is None else QUESTIONS[task.aspect],
            ties=self.study.protocol.ties,
            code=completion_code(self.study, self.votes.hashed_link(rater)) if task is None else None,
        )

    def _task(self, rater: int, position: int, *, choose: bool = False) -> Task | None:
        """The page at `position`; where that depends on the votes, as it was chosen, or may be chosen now."""
        study = self.study
        if not study.protocol.adaptive or study.questions[questions_of(study, rater)[position]].check:
            return task_of(study, rater, position)
        task = self.votes.asked_at(rater, position)
        if task is None and choose:
            task = next_task(study, rater, position, self.votes.all(), self.votes.asked())
            if task is not None:
                self.votes.ask(rater, position, task)
        return task


def completion_code(study: Study, hashed_link: str) -> str | None:
    """What a rater who is done is given; one of their own can be told from a guess by whoever has the study."""
    code = study.protocol.completion
    if code != UNIQUE_CODES:
        return code
    digest = hashlib.sha256(f"completion {study.digest} {hashed_link}".encode()).digest()
    return base64.b32encode(digest)[:10].decode()


def codes_of(study: Study, votes: Votes) -> list[tuple[int, str]]:
    """(rater, completion code) of everybody who is done; empty where the study has none."""
    everything, asked = votes.all(), votes.asked()
    clear = study.protocol.adaptive and not pressing(study, everything, asked)
    found = []
    for rater in sorted({vote.rater for vote in everything}):
        done = clear or votes.standing(rater) >= tasks_asked(study, rater)
        code = completion_code(study, votes.hashed_link(rater)) if done else None
        found += [(rater, code)] if code else []
    return found
