"""What a benchmark found: tables for the terminal, and the same as JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import write_bytes


@dataclass(frozen=True)
class Table:
    """Rows of one kind, with what has to be known to read them."""

    title: str
    rows: list[dict[str, Any]]
    """Column -> value, the columns and their order those of the first row. A column says its unit: "median s"."""
    notes: list[str] = field(default_factory=list)
    """Sentences below the table: assumptions, how something was counted."""

    def __str__(self) -> str:
        columns = list(self.rows[0]) if self.rows else []
        cells = [columns, *([_cell(row.get(column)) for column in columns] for row in self.rows)]
        widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
        texts = [all(isinstance(row.get(column), str) for row in self.rows) for column in columns]
        lines = [
            "| "
            + " | ".join(
                cell.ljust(width) if text else cell.rjust(width)
                for cell, width, text in zip(line, widths, texts, strict=True)
            )
            + " |"
            for line in cells
        ]
        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        return "\n".join([self.title, "", lines[0], rule, *lines[1:], *([""] if self.notes else []), *self.notes])


@dataclass(frozen=True)
class Report:
    """All that one benchmark has to say."""

    machine: dict[str, Any]
    """Of machine.describe_machine, at the time of measuring."""
    tables: list[Table]


def write_json(report: Report, benchmark: str, file: str) -> None:
    """The report with the command that made it, as JSON; UserError where `file` cannot be written."""
    content = {
        "benchmark": benchmark,
        "command": " ".join(["python -m stackgan_dist.bench", *sys.argv[1:]]),
        "machine": report.machine,
        "tables": [{"title": table.title, "rows": table.rows, "notes": table.notes} for table in report.tables],
    }
    try:
        write_bytes(file, (json.dumps(content, indent=1) + "\n").encode())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror}; give another name with --json") from error


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
