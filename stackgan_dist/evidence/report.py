"""A table as text, Markdown and JSON: the paper's numbers beside ours, and what makes them comparable or not."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.evidence import paper
from stackgan_dist.evidence.cells import Cell, Row
from stackgan_dist.evidence.paper import Published, Table, paper_data
from stackgan_dist.evidence.progress import Progress
from stackgan_dist.evidence.scale import Scale, ScaleName
from stackgan_dist.models import ModelConfig

_NOTHING = "/"
"""Where there can be no number, as in the paper's tables."""
_TODO = "..."


@dataclass(frozen=True)
class Filled:
    """A row with its runs, by seed; none where there can be none."""

    row: Row
    cells: dict[int, Cell]
    progress: dict[int, Progress]


@dataclass(frozen=True)
class Findings:
    """All that a table is made of."""

    table: Table
    scale_name: ScaleName
    scale: Scale
    train: PackedSet
    test: PackedSet
    seeds: tuple[int, ...]
    rows: list[Filled]

    @property
    def scored(self) -> list[tuple[Cell, Progress]]:
        """The finished cells, each once."""
        found = {
            cell.run: (cell, row.progress[seed])
            for row in self.rows
            for seed, cell in row.cells.items()
            if row.progress[seed].scores
        }
        return list(found.values())

    @property
    def cells(self) -> list[Cell]:
        """All cells, each once."""
        return list({cell.run: cell for row in self.rows for cell in row.cells.values()}.values())


@dataclass(frozen=True)
class Fact:
    """Something that decides whether two scores may be compared."""

    what: str
    ours: str
    papers: str
    is_same: bool


def facts_of(findings: Findings) -> list[Fact]:
    """What our numbers were made with, and the paper's."""
    data, theirs = findings.train.index.name, paper_data(findings.table, findings.train.index.name)
    train, test, encoder = findings.train.index.samples, findings.test.index.samples, findings.train.index.text_encoder
    whole = paper.PICTURES.get(theirs)
    scale, protocol = findings.scale, findings.scale.protocol
    models = [row.row.config.model for row in findings.rows]
    sizes = sorted({model.image_size for model in models})
    drawn = [f"{scale.size(size)} px" + (f" for {size}" if scale.size(size) != size else "") for size in sizes]
    widths = _widths(cell.config.model for cell in findings.cells)
    paper_widths = paper.paper_widths(theirs, _widths(models))
    classifier, is_stand_in = _classifier(findings)
    as_long = scale.short is None and theirs != "coco"
    return [
        Fact("classifier", classifier, paper.CLASSIFIER, not is_stand_in),
        Fact(
            "samples",
            f"{protocol.samples:,} in {protocol.splits} splits",
            f"{paper.SAMPLES:,} in {paper.SPLITS} splits",
            (protocol.samples, protocol.splits) == (paper.SAMPLES, paper.SPLITS),
        ),
        Fact(
            "data",
            f"{data}: {train:,} pictures to train on, {test:,} of the test classes",
            f"{theirs}" + (f": {whole.train:,} and {whole.test:,}" if whole else ""),
            data == theirs and (whole is None or (train, test) == (whole.train, whole.test)),
        ),
        Fact("text encoder", encoder, paper.TEXT_ENCODER, encoder == "published"),
        Fact("image sizes", ", ".join(drawn), ", ".join(f"{size} px" for size in sizes), scale.largest >= sizes[-1]),
        Fact("widths of G / D", widths, paper_widths, widths == paper_widths),
        Fact(
            "each training",
            _budget(findings.cells),
            paper.paper_budget(theirs),
            scale.short is None and theirs != "coco",
        ),
    ]


def _classifier(findings: Findings) -> tuple[str, bool]:
    """Who it was, and whether it is a stand-in for the paper's."""
    if not findings.scored:
        return _TODO, True
    row = findings.scored[0][1].scores["inception"]
    name = f"{row['network']} ({row['classifier']}, {row['weights_sha256'][:8]})"
    if tuned := row.get("fine_tuned"):
        name += (
            f", fine-tuned on the {tuned['split']} classes: {tuned['held_out_accuracy']:.1%} of "
            f"{tuned['held_out_pictures']:,} held-out pictures right"
        )
    return name, row["stand_in"]


def _widths(models: Iterable[ModelConfig]) -> str:
    """As `128 / 64`, and what differs from the most common."""
    found = Counter((model.family, model.generator_width, model.discriminator_width) for model in models)
    usual = Counter[tuple[int, int]]()
    for (_, *widths), count in found.items():
        usual[widths[0], widths[1]] += count
    first = usual.most_common(1)[0][0]
    others = [f"{family} {g} / {d}" for family, g, d in found if (g, d) != first]
    return f"{first[0]} / {first[1]}" + (f" ({', '.join(others)})" if others else "")


def _budget(cells: Iterable[Cell]) -> str:
    """Pictures seen by each training, or by each kind of training where they differ."""
    kinds = dict.fromkeys((cell.last_step, cell.config.training.batch_size) for cell in cells)
    return "; ".join(f"{steps * batch:,} pictures seen: {steps:,} steps of {batch}" for steps, batch in kinds)


def reading(findings: Findings) -> list[str]:
    """What the table can say, and what it cannot."""
    differing = [fact.what for fact in facts_of(findings) if not fact.is_same]
    lines = [
        f"With the paper's numbers: not comparable ({', '.join(differing)})."
        if differing
        else "With the paper's numbers: comparable, as far as is recorded here."
    ]
    seen = [cell.last_step * cell.config.training.batch_size for cell in findings.cells]
    # Batches of other sizes leave out other rests of an epoch.
    alike = ("" if max(seen) <= 1.01 * min(seen) else "not ") + "the same number of pictures seen by"
    lines.append(
        f"With each other: {alike} every training, the same captions, noise and classifier. A row of StackGAN counts "
        "its Stage-II alone; the Stage-I below it had as many before."
    )
    lines.append(
        "± is the deviation over the splits of one run's samples. How much another training differs is seen from "
        "column to column of the seeds, and a difference of rows that is not clearly larger says nothing."
    )
    shared = [f"{'; '.join(methods)}" for methods in _sharing(findings).values() if len(methods) > 1]
    if shared:
        lines.append(f"The same runs at this scale, counted once: {', and '.join(shared)}.")
    missing = sum(not progress.scores for row in findings.rows for progress in row.progress.values())
    if missing:
        lines.append(f"Not finished: {missing} numbers ({_TODO}); call the command again without --show.")
    for method, why in ((row.row.method, row.row.missing) for row in findings.rows):
        if why:
            lines.append(f"{method}: {why}.")
    return lines


def _sharing(findings: Findings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in findings.rows:
        for cell in list(row.cells.values())[:1]:
            found.setdefault(cell.name, []).append(" ".join(part for part in _labels(row.row) if part))
    return found


def _labels(row: Row) -> list[str]:
    """Method, augmentation and text as the paper's Table 2 has them."""
    model = row.config.model
    if model.family != "stackgan" or row.method == "StackGAN":
        return [row.method, "", ""]
    twice = ("yes" if model.text_in_stage2 else "no") if model.stage == 2 else _NOTHING
    return [row.method, "yes" if model.conditioning_augmentation else "no", twice]


def _grid(findings: Findings) -> tuple[list[str], list[list[str]]]:
    """The head and the lines of the table."""
    where = paper_data(findings.table, findings.train.index.name)
    seeds = [f"IS, seed {seed}" for seed in findings.seeds]
    labels = ["method", "CA", "text twice"] if findings.table == "table2" else ["method"]
    head = [*labels, f"paper, {where}", *seeds, "px", "Frechet", "KID x 1000", "R-precision"]
    lines = []
    for row in findings.rows:
        found = [row.progress[seed].scores if seed in row.progress else None for seed in findings.seeds]
        size = findings.scale.size(row.row.config.model.image_size)
        lines.append(
            [
                *_labels(row.row)[: len(labels)],
                _number(row.row.published),
                *(_NOTHING if scores is None else _score(scores) for scores in found),
                _NOTHING if row.row.missing else str(size),
                _each(found, "frechet", "distance", "{:.1f}"),
                _each(found, "kernel", "mean", "{:.1f}", 1_000),
                _each(found, "r precision", "share", "{:.1%}"),
            ]
        )
    return head, lines + _ends(findings, len(labels))


def _ends(findings: Findings, labels: int) -> list[list[str]]:
    """What real pictures and noise reach: the two ends of the scale."""
    by_size = {cell.config.model.image_size: progress.scores for cell, progress in findings.scored}
    lines = []
    for size, scores in sorted(by_size.items()):
        inception, share = scores["inception"], scores["r precision"]["share_of_real_pictures"]
        rest = [""] * (labels - 1)
        blank = [_NOTHING] * (len(findings.seeds) - 1)
        ends = (("real test pictures", "mean_of_real_pictures", f"{share:.1%}"), ("noise", "mean_of_noise", _NOTHING))
        for name, key, precision in ends:
            value = f"{inception[key]:.2f}"
            lines.append([name, *rest, _NOTHING, value, *blank, str(size), _NOTHING, _NOTHING, precision])
    return lines


def _number(published: Published | None) -> str:
    return _NOTHING if published is None else f"{published[0]:.2f} ± {published[1]:.2f}"


def _score(scores: dict[str, dict[str, Any]]) -> str:
    if not scores:
        return _TODO
    mean, std = scores["inception"]["mean"], scores["inception"]["std"]
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def _each(found: Sequence[dict[str, dict[str, Any]] | None], score: str, key: str, form: str, factor: float = 1) -> str:
    """One number for each seed."""
    if None in found:
        return _NOTHING
    return ", ".join(form.format(scores[score][key] * factor) if scores else _TODO for scores in found)


def _title(findings: Findings) -> str:
    number = findings.table.removeprefix("table")
    return f"Table {number} of arXiv 1612.03242 on {findings.train.index.name}, scale {findings.scale_name}"


def as_text(findings: Findings) -> str:
    """For a terminal."""
    head, lines = _grid(findings)
    facts = [[fact.what, fact.ours, fact.papers] for fact in facts_of(findings)]
    parts = [_title(findings), "", *_aligned([head, *lines]), "", *_aligned([["", "here", "the paper"], *facts]), ""]
    return "\n".join([*parts, *reading(findings)])


def _aligned(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def as_markdown(findings: Findings) -> str:
    """The same as a Markdown page."""
    head, lines = _grid(findings)
    facts = [[fact.what, fact.ours, fact.papers] for fact in facts_of(findings)]
    parts = [f"# {_title(findings)}", "", *_markdown(head, lines), "", *_markdown(["", "here", "the paper"], facts), ""]
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
