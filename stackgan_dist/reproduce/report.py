"""A table as text, Markdown and JSON: the paper's numbers beside ours, and what makes them comparable or not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from stackgan_dist.reproduce.comparability import NOTHING, TODO, Findings, facts_of, labels_of, reading
from stackgan_dist.reproduce.paper import Published, paper_data


def _grid(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of the table."""
    papers = [f"paper, {paper_data(findings.table, findings.train.index.name)}"] if findings.is_of_paper else []
    seeds = [f"IS, seed {seed}" for seed in findings.seeds]
    labels = ["method", "CA", "text twice"] if findings.table == "table2" else ["method"]
    head = [*labels, *papers, *seeds, "px", "Frechet", "KID x 1000", "R-precision", "diversity"]
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
                _each(found, "frechet", "distance", "{:.1f}"),
                _each(found, "kernel", "mean", "{:.1f}", 1_000),
                _each(found, "r precision", "share", "{:.1%}"),
                _each(found, "diversity", "deviation", "{:.2f}"),
            ]
        )
    return head, lines + _ends(findings, len(labels))


def _ends(findings: Findings, labels: int) -> list[list[str]]:
    """What real pictures and noise reach: the two ends of the scale."""
    by_size = {cell.config.model.image_size: progress.scores for cell, progress in findings.scored}
    lines = []
    for size, scores in sorted(by_size.items()):
        inception, share = scores["inception"], scores["r precision"]["share_of_real_pictures"]
        rest = [""] * (labels - 1) + [NOTHING] * findings.is_of_paper
        blank = [NOTHING] * (len(findings.seeds) - 1)
        deviation = scores["diversity"]["deviation_of_real_pictures"]
        ends = (
            ("real test pictures", "mean_of_real_pictures", f"{share:.1%}", _two_digits(deviation)),
            ("noise", "mean_of_noise", NOTHING, NOTHING),
        )
        for name, key, precision, diversity in ends:
            value = f"{inception[key]:.2f}"
            lines.append([name, *rest, value, *blank, str(size), NOTHING, NOTHING, precision, diversity])
    return lines


def _two_digits(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _number(published: Published | None) -> str:
    return NOTHING if published is None else f"{published[0]:.2f} ± {published[1]:.2f}"


def _score(scores: dict[str, dict[str, Any]]) -> str:
    if not scores:
        return TODO
    mean, std = scores["inception"]["mean"], scores["inception"]["std"]
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def _each(found: Sequence[dict[str, dict[str, Any]] | None], score: str, key: str, form: str, factor: float = 1) -> str:
    """One number for each seed."""
    if None in found:
        return NOTHING
    return ", ".join(form.format(scores[score][key] * factor) if scores else TODO for scores in found)


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
        "facts": [dataclasses.asdict(fact) for fact in facts_of(findings)],
        "reading": reading(findings),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"
