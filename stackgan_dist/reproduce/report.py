"""A table as text, Markdown and JSON: the paper's numbers beside ours, and what makes them comparable or not."""

from __future__ import annotations

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stackgan_dist.reproduce.comparability import NOTHING, TODO, Findings, facts_of, labels_of, reading
from stackgan_dist.reproduce.paper import Published, paper_data


@dataclass(frozen=True)
class Column:
    """A number of scores.jsonl in the table."""

    title: str
    score: str
    key: str
    form: str
    interval: str = "interval"
    """The key of its interval."""
    factor: float = 1.0


COLUMNS = (
    Column("Frechet", "frechet", "distance", "{:.1f}"),
    Column("KID x 1000", "kernel", "mean", "{:.1f}", factor=1_000),
    Column("precision", "neighbours", "precision", "{:.2f}", "precision_interval"),
    Column("recall", "neighbours", "recall", "{:.2f}", "recall_interval"),
    Column("R-precision", "r precision", "share", "{:.1%}"),
    Column("diversity", "diversity", "deviation", "{:.2f}", "deviation_interval"),
)
"""Behind the Inception Scores."""


def _grid(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of the table."""
    papers = [f"paper, {paper_data(findings.table, findings.train.index.name)}"] if findings.is_of_paper else []
    seeds = [f"IS, seed {seed}" for seed in findings.seeds]
    labels = ["method", "CA", "text twice"] if findings.table == "table2" else ["method"]
    head = [*labels, *papers, *seeds, "px", *(column.title for column in COLUMNS)]
    lines = []
    for row in findings.rows:
        found = [row.progress[seed].scores if seed in row.progress else None for seed in findings.seeds]
        size = findings.scale.size(row.row.config.model.image_size)
        lines.append(
            [
                *labels_of(row.row)[: len(labels)],
                *(_number(row.row.published) for _ in papers),
                *(NOTHING if scores is None else _score(scores) for scores in found),
                NOTHING if row.row.missing else str(size),
                *(_each(found, column) for column in COLUMNS),
            ]
        )
    return head, [*lines, *_beside(findings, len(labels)), *_ends(findings, len(labels))]


def _beside(findings: Findings, labels: int) -> list[list[str]]:
    """Pictures of other systems."""
    return [
        _line(
            findings,
            labels,
            other.name,
            _score(dict(other.scores)),
            other.image_size,
            [_each([other.scores], column) for column in COLUMNS],
        )
        for other in findings.beside
    ]


def _ends(findings: Findings, labels: int) -> list[list[str]]:
    """What real pictures and noise reach: the two ends of the scale."""
    by_size = {cell.config.model.image_size: progress.scores for cell, progress in findings.scored}
    lines = []
    for size, scores in sorted(by_size.items()):
        inception, share = scores["inception"], scores["r precision"]["share_of_real_pictures"]
        deviation = scores["diversity"]["deviation_of_real_pictures"]
        spread = NOTHING if deviation is None else f"{deviation:.2f}"
        ends = (
            ("real test pictures", "mean_of_real_pictures", f"{share:.1%}", spread),
            ("noise", "mean_of_noise", NOTHING, NOTHING),
        )
        for name, key, precision, diversity in ends:
            known = {"R-precision": precision, "diversity": diversity}
            others = [known.get(column.title, NOTHING) for column in COLUMNS]
            lines.append(_line(findings, labels, name, f"{inception[key]:.2f}", size, others))
    return lines


def _line(findings: Findings, labels: int, name: str, score: str, size: int, others: list[str]) -> list[str]:
    """One that belongs to no run: its Inception Score stands in the first seed's column."""
    rest = [""] * (labels - 1) + [NOTHING] * findings.is_of_paper
    blank = [NOTHING] * (len(findings.seeds) - 1)
    return [name, *rest, score, *blank, str(size), *others]


def _number(published: Published | None) -> str:
    return NOTHING if published is None else f"{published[0]:.2f} ± {published[1]:.2f}"


def _score(scores: dict[str, dict[str, Any]]) -> str:
    if not scores:
        return TODO
    mean, std = scores["inception"]["mean"], scores["inception"]["std"]
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def _each(found: Sequence[Mapping[str, dict[str, Any]] | None], column: Column) -> str:
    """One number for each seed, with its interval where it has one; of several seeds their mean and deviation too."""
    if None in found:
        return NOTHING
    cells, numbers = [], []
    for scores in found:
        row = scores.get(column.score) if scores else None
        if not scores:
            cells.append(TODO)
        elif row is None or row.get(column.key) is None:
            cells.append(NOTHING)
        else:
            numbers.append(row[column.key] * column.factor)
            cells.append(column.form.format(numbers[-1]) + _within(row, column))
    text = ", ".join(cells)
    if len(numbers) > 1:
        spread = column.form.format(statistics.stdev(numbers))
        text += f"; mean {column.form.format(statistics.mean(numbers))} ± {spread}"
    return text


def _within(row: Mapping[str, Any], column: Column) -> str:
    interval = row.get(column.interval)
    if interval is None:
        return ""
    low, high = (column.form.format(end * column.factor) for end in interval)
    return f" [{low}, {high}]"


def _title(findings: Findings) -> str:
    number = findings.table.removeprefix("table")
    what = f"Table {number} of arXiv 1612.03242" if findings.is_of_paper else "The terms of the picture recipe"
    return f"{what} on {findings.train.index.name}, scale {findings.scale_name}"


def as_text(findings: Findings) -> str:
    """For a terminal."""
    head, lines = _grid(findings)
    parts = [_title(findings), "", *_aligned([head, *lines]), ""]
    for fact in facts_of(findings):
        parts.append(f"{fact.what:16} {fact.ours}")
        if findings.is_of_paper:
            parts.append(f"{'':16} the paper: {fact.papers}")
    return "\n".join([*parts, "", *reading(findings)])


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def as_markdown(findings: Findings) -> str:
    """The same as a Markdown page."""
    head, lines = _grid(findings)
    columns = 3 if findings.is_of_paper else 2
    facts = [[fact.what, fact.ours, fact.papers][:columns] for fact in facts_of(findings)]
    facts_head = ["", "here", "the paper"][:columns]
    parts = [f"# {_title(findings)}", "", *_markdown(head, lines), "", *_markdown(facts_head, facts), ""]
    return "\n".join([*parts, *(f"- {line}" for line in reading(findings)), ""])


def _markdown(head: list[str], lines: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines)]


def as_json(findings: Findings) -> str:
    """Everything, for programs: each run with its scores as they are in its scores.jsonl."""
    rows = [
        {
            "method": row.row.method,
            "preset": row.row.preset,
            "paper": row.row.published,
            "missing": row.row.missing,
            "runs": [
                {
                    "seed": seed,
                    "run": cell.run,
                    "step": row.progress[seed].step,
                    "steps": cell.last_step,
                    "config": dataclasses.asdict(cell.config),
                    "scores": row.progress[seed].scores,
                }
                for seed, cell in row.cells.items()
            ],
        }
        for row in findings.rows
    ]
    content = {
        "table": findings.table,
        "scale": findings.scale_name,
        "data": {
            "name": findings.train.index.name,
            "train": {"url": findings.train.url, "pictures": findings.train.index.samples},
            "test": {"url": findings.test.url, "pictures": findings.test.index.samples},
        },
        "rows": rows,
        "beside": [dataclasses.asdict(other) for other in findings.beside],
        "facts": [dataclasses.asdict(fact) for fact in facts_of(findings)],
        "reading": reading(findings),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
