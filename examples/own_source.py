"""A source of pictures of one's own: one line of cards.tsv is one picture (file, class, what it shows).

    PYTHONPATH=examples stackgan pack own_source:Cards --root cards --encoder ngrams --sizes 76 --options test_share=0.2

ROOT holds cards.tsv and the folder scans/ with the pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record


@dataclass(frozen=True)
class Cards:
    """See stackgan_dist.pack.sources.Source. Called with the root, and with what stands behind --options."""

    root: str | None
    test_share: float = 0.1
    """Of the classes: the last ones are the test split."""

    def records(self, split: str) -> list[Record]:
        """All pictures of `split` without their pixels, in a fixed order."""
        if self.root is None:
            raise UserError("give the folder of cards.tsv and scans/ with --root")
        table = Path(self.root) / "cards.tsv"
        if not table.is_file():
            raise UserError(f"there is no {table}; --root must hold it, and the folder scans/")
        rows = [line.split("\t") for line in table.read_text(encoding="utf-8").splitlines()]
        classes = sorted({name for _, name, _ in rows})
        test = set(classes[len(classes) - round(self.test_share * len(classes)) :])
        return [
            Record(key=Path(file).stem, captions=(text,), class_name=name, source_id=f"scans/{file}")
            for file, name, text in rows
            if (name in test) == (split == "test")
        ]

    def picture(self, record: Record) -> bytes:
        """The file of one picture, as it is; a packing process decodes it."""
        return (Path(self.root or "") / record.source_id).read_bytes()
