"""The report on a study, and its votes as CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study.adaptive import pressing, standing, wins_of
from stackgan_dist.human_rank.study.folder import Study
from stackgan_dist.human_rank.study.order import Task, task_of, tasks_asked
from stackgan_dist.human_rank.study.paper import paper_row
from stackgan_dist.human_rank.study.protocol import QUESTIONS, Aspect
from stackgan_dist.human_rank.study.statistics import kendalls_w, mean_ranks, preferences
from stackgan_dist.human_rank.study.strength import Stages, strengths_of
from stackgan_dist.human_rank.study.votes import Vote


@dataclasses.dataclass(frozen=True)
class Attention:
    """How a rater did on the attention checks they have met."""

    passed: int
    """The real pictures were ranked first."""
    met: int


def attention(study: Study, votes: Sequence[Vote]) -> dict[int, Attention]:
    """By rater, of the votes that stand."""
    found: dict[int, Attention] = {}
    for vote in votes:
        if vote.undone is None:
            now = found.setdefault(vote.rater, Attention(0, 0))
            if study.questions[vote.question].check:
                found[vote.rater] = Attention(now.passed + (vote.places[0] == (0,)), now.met + 1)
    return found


def report(study: Study, votes: Sequence[Vote], tasks: Tasks, *, attentive_only: bool) -> str:
    """Mean rank, strength, agreement and preferences of the votes that stand, for each aspect that was asked about.

    `attentive_only` leaves out raters who failed an attention check. `tasks` are `tasks_of` the votes.

    Raises UserError when there is nothing to report.
    """
    checks = attention(study, votes)
    failed = {rater for rater, check in checks.items() if check.passed < check.met}
    counted = [
        vote
        for vote in votes
        if vote.undone is None
        and not study.questions[vote.question].check
        and not (attentive_only and vote.rater in failed)
    ]
    if not counted:
        what = "vote of an attentive rater" if attentive_only else "vote"
        raise UserError(f"there is no {what} to report yet; open the study with `serve` and rank some sentences")
    clear = study.protocol.adaptive and not pressing(study, votes, tasks)
    given = Counter(vote.rater for vote in votes if vote.undone is None)
    finished = sum(clear or count >= tasks_asked(study, rater) for rater, count in given.items())
    lines = [
        f"{len(counted):,} votes by {len({vote.rater for vote in counted})} raters ({finished} finished) on "
        f"{len({vote.question for vote in counted}):,} of {study.sentences:,} sentences, {study.images} pictures each, "
        f"of {study.captions}",
    ]
    for aspect in study.protocol.aspects:
        about = [vote for vote in counted if tasks[vote.rater, vote.position].aspect == aspect]
        if aspect != "overall" or len(study.protocol.aspects) > 1:
            lines += ["", f"== {aspect}: {QUESTIONS[aspect]} ({len(about):,} votes)"]
        if about:
            lines += ["", *_of_aspect(study, about)]
        if study.protocol.adaptive:
            lines += ["", _clear(study, votes, tasks, aspect)]
    if study.checks:
        kept = "left out" if attentive_only else "counted all the same; --attentive-only leaves them out"
        met = [check for check in checks.values() if check.met]
        lines += ["", f"attention checks: {len(met) - len(failed)} of {len(met)} raters passed all they met"]
        lines += [
            f"  rater {rater} passed {checks[rater].passed} of {checks[rater].met} ({kept})" for rater in sorted(failed)
        ]
    return "\n".join(lines)


Tasks = Mapping[tuple[int, int], Task]
"""What every vote was about, by rater and position."""


def tasks_of(study: Study, votes: Sequence[Vote], asked: Tasks) -> Tasks:
    """By the plan, and by what an adaptive study chose: `Votes.asked`, empty for others."""
    return {
        place: asked.get(place) or task_of(study, *place) for place in ((vote.rater, vote.position) for vote in votes)
    }


def _of_aspect(study: Study, votes: Sequence[Vote]) -> Iterator[str]:
    names = [method.name for method in study.methods]
    width = max(len(name) for name in names)
    ranks = np.stack([ranks_of(vote, len(names)) for vote in votes])
    raters = np.array([vote.rater for vote in votes])
    questions = np.array([vote.question for vote in votes])
    yield f"mean rank, 1 is best of {study.at_once}  (± standard error over votes; over raters)"
    for name, method, mean in sorted(
        zip(names, study.methods, mean_ranks(ranks, raters), strict=True), key=lambda row: row[2].mean
    ):
        yield (
            f"  {name:{width}}  {mean.mean:.2f} ± {_number(mean.error)}; ± {_number(mean.error_over_raters)}"
            f"   {method.image_size} px, {method.checkpoint} ({method.weights})"
        )
    if study.at_once == len(names):
        yield f"  the paper: {paper_row(study.data)}"
    yield ""
    yield from _strengths(study, votes, width)
    yield ""
    if study.at_once == len(names):
        yield from _agreement(ranks, raters, questions)
        yield ""
    yield "preferences  (share of votes; sentences for and against, exact sign test, Holm's correction)"
    for pair in preferences(ranks, questions):
        yield (
            f"  {names[pair.first]} before {names[pair.second]}: {pair.share:.1%}; "
            f"{pair.for_first} against {pair.for_second}, p = {_p(pair.p_value)}, corrected {_p(pair.p_corrected)}"
        )


def _strengths(study: Study, votes: Sequence[Vote], width: int) -> Iterator[str]:
    model = "Bradley-Terry" if study.at_once == 2 else "Plackett-Luce"
    stages = Stages.of_votes(len(study.methods), [vote.places for vote in votes], [vote.rater for vote in votes])
    yield f"strength, log-odds against the mean method  ({model}, maximum likelihood; 95 % over raters, bootstrap)"
    if not stages.is_determined():
        yield "  unknown: a method won, or lost, every time against some others; more votes will tell how far it is"
        return
    found = zip(study.methods, strengths_of(stages, seed=study.seed), strict=True)
    for method, one in sorted(found, key=lambda row: -row[1].value):
        limits = "unknown with one rater" if math.isnan(one.low) else f"{one.low:+.2f} to {one.high:+.2f}"
        yield f"  {method.name:{width}}  {one.value:+.2f}  ({limits})"


def _clear(study: Study, votes: Sequence[Vote], tasks: Tasks, aspect: Aspect) -> str:
    """What an adaptive study has found out."""
    protocol = study.protocol
    now = standing(wins_of(study, votes, tasks, aspect), protocol.certainty, protocol.most_per_pair)
    if now.open_pairs:
        return f"the order is not clear yet: {len(now.open_pairs)} pairs are open"
    names = [method.name for method in study.methods]
    equal = "".join(f"; {names[a]} and {names[b]} were not told apart" for a, b in now.tied)
    return f"the order is clear ({protocol.certainty:.0%}): {' > '.join(names[i] for i in now.order)}{equal}"


def ranks_of(vote: Vote, methods: int) -> NDArray[np.float64]:
    """(methods,): a vote's ranks from 1, the mean one for those that share a place, NaN for what was not shown."""
    ranks = np.full(methods, np.nan)
    before = 0
    for place in vote.places:
        ranks[list(place)] = before + (1 + len(place)) / 2
        before += len(place)
    return ranks


def _agreement(ranks: np.ndarray, raters: np.ndarray, questions: np.ndarray) -> Iterator[str]:
    shared = [ranks[questions == q] for q in np.unique(questions) if (questions == q).sum() > 1]
    yield "agreement, Kendall's W from 0 (none) to 1 (complete)"
    if shared:
        within = float(np.mean([kendalls_w(rows) for rows in shared]))
        chance = float(np.mean([1 / len(rows) for rows in shared]))
        yield f"  on a sentence   {within:.2f}, mean of {len(shared)} with two raters or more (chance {chance:.2f})"
    else:
        yield "  on a sentence   unknown: no sentence has two raters yet"
    overall = kendalls_w(np.stack([ranks[raters == rater].mean(axis=0) for rater in np.unique(raters)]))
    yield f"  on the methods  {_number(overall)}, of the raters' mean ranks"


def _number(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.2f}"


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"


_COLUMNS = (
    "rater",
    "position",
    "question",
    "check",
    "class",
    "sentence",
    "aspect",
    "time",
    "undone",
    "shown",
    "ranking",
)


def rows(study: Study, votes: Sequence[Vote], tasks: Tasks) -> Iterator[dict[str, Any]]:
    """Every vote as a flat row, those taken back included. In `ranking`, names that share a place are one list."""
    names = [method.name for method in study.methods]
    for vote in votes:
        question, task = study.questions[vote.question], tasks[vote.rater, vote.position]
        yield {
            "rater": vote.rater,
            "position": vote.position,
            "question": vote.question,
            "check": question.check,
            "class": question.class_name,
            "sentence": question.sentence,
            "aspect": task.aspect,
            "time": vote.time,
            "undone": vote.undone,
            "shown": [_label(names, m, question.check) for m in task.shown],
            "ranking": [
                labels[0] if len(labels) == 1 else labels
                for place in vote.places
                for labels in [[_label(names, m, question.check) for m in place]]
            ],
        }


def as_json(study: Study, votes: Sequence[Vote], tasks: Tasks) -> str:
    """The study and all its votes."""
    content = {"study": dataclasses.asdict(study), "digest": study.digest, "votes": list(rows(study, votes, tasks))}
    return json.dumps(content, indent=1) + "\n"


def as_csv(study: Study, votes: Sequence[Vote], tasks: Tasks) -> str:
    """One line per vote; `shown` and `ranking` are divided by " > ", and by " = " within a place.

    After them a column `rank NAME` for each method: empty where it was not shown, or the vote is a check.
    """
    names = [method.name for method in study.methods]
    out = io.StringIO()
    writer = csv.DictWriter(out, (*_COLUMNS, *(f"rank {name}" for name in names)))
    writer.writeheader()
    for vote, row in zip(votes, rows(study, votes, tasks), strict=True):
        ranking = " > ".join(place if isinstance(place, str) else " = ".join(place) for place in row["ranking"])
        ranks = {} if row["check"] else dict(zip(names, ranks_of(vote, len(names)).tolist(), strict=True))
        columns = {f"rank {name}": f"{rank:g}" for name, rank in ranks.items() if not math.isnan(rank)}
        writer.writerow({**row, "shown": " > ".join(row["shown"]), "ranking": ranking, **columns})
    return out.getvalue()


def _label(names: Sequence[str], method: int, check: bool) -> str:
    if check:
        return "real" if method == 0 else "noise"
    return names[method]
