"""What makes the numbers of a table comparable, with the paper's and with each other, or not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from stackgan_dist.data.dataset import PackedSet
from stackgan_dist.models import ModelConfig
from stackgan_dist.reproduce import paper
from stackgan_dist.reproduce.beside import Beside
from stackgan_dist.reproduce.cells import Cell, Row
from stackgan_dist.reproduce.paper import Table, paper_data
from stackgan_dist.reproduce.progress import Progress
from stackgan_dist.reproduce.scale import Scale, ScaleName

NOTHING = "/"
"""Where there can be no number, as in the paper's tables."""
TODO = "..."
"""Where there is none yet."""


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
    beside: list[Beside]
    """Pictures of other systems, below the rows."""

    @property
    def is_of_paper(self) -> bool:
        """Whether the paper has this table; it knows nothing of terms."""
        return self.table != "terms"

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
    ours = [f"{scale.size(size)} px" + (f" for {size}" if scale.size(size) != size else "") for size in sizes]
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
        Fact("image sizes", ", ".join(ours), ", ".join(f"{size} px" for size in sizes), scale.largest >= sizes[-1]),
        Fact("widths of G / D", widths, paper_widths, widths == paper_widths),
        Fact("each training", _budget(findings.cells), paper.paper_budget(theirs), as_long),
    ]


def _classifier(findings: Findings) -> tuple[str, bool]:
    """Who it was, and whether it is a stand-in for the paper's."""
    if not findings.scored:
        return TODO, True
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
    lines = []
    if findings.is_of_paper:
        differing = [fact.what for fact in facts_of(findings) if not fact.is_same]
        lines.append(
            f"With the paper's numbers: not comparable ({', '.join(differing)})."
            if differing
            else "With the paper's numbers: comparable, as far as is recorded here."
        )
    seen = [cell.last_step * cell.config.training.batch_size for cell in findings.cells]
    # Batches of other sizes leave out other rests of an epoch.
    alike = ("" if max(seen) <= 1.01 * min(seen) else "not ") + "the same number of pictures seen by"
    lines.append(
        f"With each other: {alike} every training, the same captions, noise and classifier. A row of StackGAN counts "
        "its Stage-II alone; the Stage-I below it had as many before."
    )
    lines.append(
        "± is the deviation over the splits of one run's samples. How much another training differs is seen from "
        "column to column of the seeds; a difference of rows that is not clearly larger says nothing, nor a row near "
        "noise."
    )
    lines += [
        f"One run at this scale: {' and '.join(methods)}."
        for methods in _sharing(findings).values()
        if len(methods) > 1
    ]
    lines.append("[low, high] is the interval of 95 % over other samples of the same run (docs/scores.md).")
    lines += [other.reading for other in findings.beside]
    missing = sum(not progress.scores for row in findings.rows for progress in row.progress.values())
    if missing:
        lines.append(f"Not finished: {missing} numbers ({TODO}); call the command again without --show.")
    for method, why in ((row.row.method, row.row.missing) for row in findings.rows):
        if why:
            lines.append(f"{method}: {why}.")
    return lines


def _sharing(findings: Findings) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in findings.rows:
        for cell in list(row.cells.values())[:1]:
            found.setdefault(cell.name, []).append(" ".join(part for part in labels_of(row.row) if part))
    return found


def labels_of(row: Row) -> list[str]:
    """Method, augmentation and text as the paper's Table 2 has them."""
    model = row.config.model
    if model.family != "stackgan" or row.method == "StackGAN" or row.published is None:
        return [row.method, "", ""]
    twice = ("yes" if model.text_in_stage2 else "no") if model.stage == 2 else NOTHING
    return [row.method, "yes" if model.conditioning_augmentation else "no", twice]
