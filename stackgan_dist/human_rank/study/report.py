"""The report on a study, and its votes as CSV and JSON."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study.folder import Study
from stackgan_dist.human_rank.study.order import questions_of, slots_of
from stackgan_dist.human_rank.study.paper import paper_row
from stackgan_dist.human_rank.study.statistics import kendalls_w, mean_ranks, preferences
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
                found[vote.rater] = Attention(now.passed + (vote.ranking[0] == 0), now.met + 1)
    return found


def report(study: Study, votes: Sequence[Vote], *, attentive_only: bool) -> str:
    """Mean rank, agreement and preferences of the votes that stand.

    `attentive_only` leaves out raters who failed an attention check.

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
    # (votes, methods): place of each method in each ranking.
    ranks = np.array([np.argsort(vote.ranking) + 1 for vote in counted], dtype=np.float64)
    raters = np.array([vote.rater for vote in counted])
    questions = np.array([vote.question for vote in counted])
    finished = sum(
        sum(vote.rater == rater and vote.undone is None for vote in votes) == len(questions_of(study, rater))
        for rater in checks
    )
    names = [method.name for method in study.methods]
    width = max(len(name) for name in names)
    lines = [
        f"{len(counted):,} votes by {len(set(raters.tolist()))} raters ({finished} finished) on "
        f"{len(set(questions.tolist())):,} of {study.sentences:,} sentences, {study.images} pictures each, "
        f"of {study.captions}",
        "",
        f"mean rank, 1 is best of {len(names)}  (± standard error over votes; over raters)",
    ]
    for name, method, mean in sorted(
        zip(names, study.methods, mean_ranks(ranks, raters), strict=True), key=lambda row: row[2].mean
    ):
        lines.append(
            f"  {name:{width}}  {mean.mean:.2f} ± {_number(mean.error)}; ± {_number(mean.error_over_raters)}"
            f"   {method.image_size} px, {method.checkpoint} ({method.weights})"
        )
    lines += [f"  the paper: {paper_row(study.data)}", "", *_agreement(ranks, raters, questions), ""]
    lines.append("preferences  (share of votes; sentences for and against, exact sign test, Holm's correction)")
    for pair in preferences(ranks, questions):
        lines.append(
            f"  {names[pair.first]} before {names[pair.second]}: {pair.share:.1%}; "
            f"{pair.for_first} against {pair.for_second}, p = {_p(pair.p_value)}, corrected {_p(pair.p_corrected)}"
        )
    if study.checks:
        kept = "left out" if attentive_only else "counted all the same; --attentive-only leaves them out"
        met = [check for check in checks.values() if check.met]
        lines += ["", f"attention checks: {len(met) - len(failed)} of {len(met)} raters passed all they met"]
        lines += [
            f"  rater {rater} passed {checks[rater].passed} of {checks[rater].met} ({kept})" for rater in sorted(failed)
        ]
    return "\n".join(lines)


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


_COLUMNS = ("rater", "position", "question", "check", "class", "sentence", "time", "undone", "shown", "ranking")


def rows(study: Study, votes: Sequence[Vote]) -> Iterator[dict[str, Any]]:
    """Every vote as a flat row, those taken back included."""
    names = [method.name for method in study.methods]
    for vote in votes:
        question = study.questions[vote.question]
        yield {
            "rater": vote.rater,
            "position": vote.position,
            "question": vote.question,
            "check": question.check,
            "class": question.class_name,
            "sentence": question.sentence,
            "time": vote.time,
            "undone": vote.undone,
            "shown": [_label(names, m, question.check) for m in slots_of(study, vote.rater, vote.position)],
            "ranking": [_label(names, m, question.check) for m in vote.ranking],
        }


def as_json(study: Study, votes: Sequence[Vote]) -> str:
    """The study and all its votes."""
    content = {"study": dataclasses.asdict(study), "digest": study.digest, "votes": list(rows(study, votes))}
    return json.dumps(content, indent=1) + "\n"


def as_csv(study: Study, votes: Sequence[Vote]) -> str:
    """One line per vote; `shown` and `ranking` are divided by " > "."""
    out = io.StringIO()
    writer = csv.DictWriter(out, _COLUMNS)
    writer.writeheader()
    for row in rows(study, votes):
        writer.writerow({**row, "shown": " > ".join(row["shown"]), "ranking": " > ".join(row["ranking"])})
    return out.getvalue()


def _label(names: Sequence[str], method: int, check: bool) -> str:
    if check:
        return "real" if method == 0 else "noise"
    return names[method]
