"""Anyone's pictures: a folder, and their captions in one of three forms.

    cats/tom.jpg, cats/tom.txt    beside each picture a text file of its name, a caption a line
    captions.jsonl                {"file": "cats/tom.jpg", "captions": ["a grey cat", ...]}, one picture a line
    captions.csv                  a table with the columns file and caption, one caption a line

`captions.jsonl` may also say "caption" or "text" for a single one (a string or a list) and "file_name" for the file,
and give a "class" and a "split" ("train", "test" or "val"); so may the table.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import PurePosixPath
from typing import Literal, get_args

from stackgan_dist.errors import UserError
from stackgan_dist.pack.pictures import ENDINGS
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account, of_ending
from stackgan_dist.pack.sources.captions_file import Entry, merged, one_line, read_json_lines, read_table
from stackgan_dist.pack.sources.files import Files, Names
from stackgan_dist.pack.sources.splits import check_split, check_test_fraction, splits_by_folder, val_as_test

Classes = Literal["auto", "folders", "none"]

_CAPTION_FILES = ("captions.jsonl", "captions.csv")
_FEWEST_CLASSES = 2
"""In a split: a wrong text is one of another class."""


class PictureFolder:
    """A folder of pictures.

    Args:
        root: its URL.
        captions: the captions file, relative to the root; by default captions.jsonl or captions.csv where there is
            one, and text files beside the pictures otherwise.
        classes: "auto": the captions file's, if it gives any; "folders": the name of the folder that a picture is in;
            "none".
        test_fraction: share of the pictures that make the split "test", chosen by a hash of their names, so that it
            stays the same when pictures are added; at least two pictures, where enough are left for training. A "split"
            in the captions file, or folders train/, test/ and val/ under the root, decide instead where they exist.
        partial: leave out captions whose picture is missing instead of rejecting them.
    """

    def __init__(
        self,
        root: str | None,
        *,
        captions: str | None = None,
        classes: Classes = "auto",
        test_fraction: float = 0.1,
        partial: bool = False,
    ) -> None:
        self._files = Files(root, "folder", "pictures and their captions")
        if classes not in get_args(Classes):
            raise UserError(f"folder: classes is {classes!r}; choose one of {', '.join(get_args(Classes))}")
        check_test_fraction("folder", test_fraction)
        self._captions = captions
        self._classes = classes
        self._test_fraction = test_fraction
        self._partial = partial
        self._account = Account(0)

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, by name. Raises UserError where nothing is found, naming what was looked for."""
        check_split("folder", split)
        tree = self._files.tree()
        account = self._account = Account(len(tree.files) + len(tree.others))
        account.others.update(tree.others.values())
        present = Names(tree.files)
        pictures = [name for name in tree.files if name.lower().endswith(ENDINGS) and not _is_hidden(name)]
        if not pictures:
            raise UserError(f"{self._files.root} holds no pictures ({', '.join(ENDINGS)}); check --root")
        chosen = self._captions or next((name for name in _CAPTION_FILES if name in present), None)
        texts: set[str] = set()
        if chosen is None:
            entries = [self._beside(name, present, texts) for name in pictures]
            if all(entry.fault for entry in entries):
                raise UserError(
                    f"{self._files.root} holds {len(pictures)} pictures but no captions: neither captions.jsonl nor "
                    f"captions.csv, nor text files beside the pictures (the first: {entries[0].fault})"
                )
        else:
            entries = self._captions_file(chosen, present)
            texts.add(chosen)
        splits = self._splits(entries, present, account)
        records = [
            self._record(entry, entry.file in present)
            for entry in entries
            if splits[entry.file] == split and not (self._partial and not entry.fault and entry.file not in present)
        ]
        gone = sum(not entry.fault and entry.file not in present for entry in entries)
        if gone and self._partial:
            account.note(f"{gone} pictures that {chosen} names are missing, and were left out (partial).")
        self._count(tree.files, {entry.file for entry in entries}, texts, splits, chosen)
        return records

    def account(self, splits: Sequence[str]) -> Account:
        """Of all files under the root; see AccountingSource."""
        return self._account

    def picture(self, record: Record) -> bytes:
        """The file's bytes."""
        return self._files.read(record.source_id)

    def _record(self, entry: Entry, present: bool) -> Record:
        return Record(
            key=key_of(entry.file),
            captions=entry.captions,
            class_name=self._class_of(entry),
            source_id=entry.file,
            fault=entry.fault or ("" if present else "the picture is missing"),
            present=present,
        )

    def _class_of(self, entry: Entry) -> str:
        if self._classes == "folders":
            return PurePosixPath(entry.file).parent.name
        return entry.class_name if self._classes == "auto" else ""

    def _captions_file(self, chosen: str, present: Names) -> list[Entry]:
        text = _decoded(self._files.needed(chosen, "name it with --options captions=FILE"))
        if text is None:
            raise UserError(f"{self._files.url(chosen)} is not UTF-8; convert it, e.g. with iconv -t UTF-8")
        is_table = not chosen.endswith((".jsonl", ".json"))
        rows = read_table(text, chosen) if is_table else read_json_lines(text, chosen)
        # A table has a row for each caption: those of a picture are gathered.
        entries: dict[str, Entry] = {}
        for row in rows:
            row = dataclasses.replace(row, file=present.find(row.file) or row.file)
            known = entries.get(row.file)
            if known is not None and is_table:
                row = merged(known, row)
            elif known is not None:
                row = dataclasses.replace(known, fault=known.fault or "the file has two lines of captions")
            entries[row.file] = row
        return [entries[file] for file in sorted(entries)]

    def _beside(self, picture: str, present: Names, texts: set[str]) -> Entry:
        """The entry of `picture` by the text file beside it, whose name is added to `texts`."""
        stem = str(PurePosixPath(picture).with_suffix(""))
        name = next((found for ending in (".txt", ".TXT") if (found := present.find(stem + ending))), None)
        if name is None:
            return Entry(picture, (), fault=f"there are no captions {stem}.txt")
        texts.add(name)
        text = _decoded(self._files.read(name))
        if text is None:
            return Entry(picture, (), fault=f"{name} is not UTF-8")
        return Entry(picture, tuple(caption for line in text.splitlines() if (caption := one_line(line))))

    def _splits(self, entries: Sequence[Entry], present: Names, account: Account) -> dict[str, str]:
        """Name of the file of each entry -> its split, "" for those in none."""
        by_hash = self._by_hash(entries, present)
        if any(entry.split for entry in entries):
            given = {entry.file: entry.split for entry in entries}
            return {file: split or by_hash[file] for file, split in val_as_test(given, account).items()}
        return splits_by_folder([entry.file for entry in entries], account) or by_hash

    def _by_hash(self, entries: Sequence[Entry], present: Names) -> dict[str, str]:
        test = {entry.file for entry in entries if _fraction(entry.file) < self._test_fraction}
        if self._test_fraction:
            usable = [entry for entry in entries if not entry.fault and entry.file in present]
            test = _of_two_classes(test, {entry.file: self._class_of(entry) or entry.file for entry in usable})
        return {entry.file: "test" if entry.file in test else "train" for entry in entries}

    def _count(
        self, files: Sequence[str], named: set[str], texts: set[str], splits: dict[str, str], chosen: str | None
    ) -> None:
        account = self._account
        for name in files:
            if name in named:
                if splits[name]:
                    account.pictures[splits[name]] += 1
                else:
                    account.others["pictures in no split: outside the folders train/, test/ and val/"] += 1
            elif name in texts:
                account.others["with captions"] += 1
            elif _is_hidden(name):
                account.others["hidden: their names, or their folders', begin with a dot"] += 1
            elif name.lower().endswith(ENDINGS):
                account.others[f"pictures without caption: {chosen} does not name them"] += 1
            elif name in _CAPTION_FILES:
                account.others[f"{name}, which is not read beside {chosen}"] += 1
            elif name.lower().endswith(".txt") and chosen is None:
                account.others["texts without a picture of their name"] += 1
            else:
                account.others[of_ending(name)] += 1


def key_of(name: str) -> str:
    """A key for the file `name`: readable, and different for different names."""
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePosixPath(name).stem)[:60]
    return f"{readable}-{blake2b(name.encode('utf-8', 'surrogatepass'), digest_size=6).hexdigest()}"


def _fraction(name: str) -> float:
    """A number in [0, 1) that hangs on `name` alone."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=6).digest()) / 2**48


def _of_two_classes(test: set[str], classes: dict[str, str]) -> set[str]:
    """`test` with the next pictures by their hash until two of the `classes` are in it; empty if training lacks two."""
    chosen = {classes[file] for file in test if file in classes}
    if len(chosen) >= _FEWEST_CLASSES:
        return test
    added = set(test)
    for file in sorted(classes, key=_fraction):
        if len(chosen) < _FEWEST_CLASSES:
            added.add(file)
            chosen.add(classes[file])
    left = {class_name for file, class_name in classes.items() if file not in added}
    return added if min(len(chosen), len(left)) >= _FEWEST_CLASSES else set()


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def _decoded(data: bytes) -> str | None:
    """`data` as UTF-8 text, a byte order mark taken off; None when it is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
