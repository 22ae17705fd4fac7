"""Anyone's pictures: a folder, and their captions in the forms that people have them.

    cats/tom.jpg, cats/tom.txt    beside each picture a text file of its name, a caption a line; or in a folder of texts
    captions.jsonl                {"file": "cats/tom.jpg", "captions": ["a grey cat", ...]}, one picture a line
    captions.csv                  a table with the columns file and caption, one caption a line
    metadata.jsonl, .csv, .parquet    as in Hugging Face's imagefolder: file_name and text
    any other table or JSON file      whose columns (captions/entry.py has their names) or entries name the pictures

A picture may be named without its folder or ending where that is unique. A "class" and a "split" ("train", "test" or
"val") may be given as well.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Literal, get_args

from stackgan_dist.errors import UserError
from stackgan_dist.pack.pictures import ENDINGS
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account, endings_of, of_ending, printable, some_names
from stackgan_dist.pack.sources.captions.entry import Columns, Entry, listed
from stackgan_dist.pack.sources.captions.find import FIRST, CaptionsFile, CaptionsFiles, chosen_splits, split_in
from stackgan_dist.pack.sources.captions.placed import placed
from stackgan_dist.pack.sources.captions.texts import PictureTexts, read_text
from stackgan_dist.pack.sources.files import Files
from stackgan_dist.pack.sources.fit import Fit, check_fit
from stackgan_dist.pack.sources.names import PARQUET, TARS, PictureNames, fraction_of, is_hidden, key_of
from stackgan_dist.pack.sources.splits import (
    check_split,
    check_test_fraction,
    split_of,
    splits_by_folder,
    val_as_test,
)

Classes = Literal["auto", "folders", "none"]

_FEWEST_CLASSES = 2
"""In a split: a wrong text is one of another class."""


class PictureFolder:
    """A folder of pictures.

    Args:
        root: its URL.
        captions: the captions file, relative to the root, or a list of several; by default captions.jsonl or
            captions.csv, or else the text files of the pictures, or else the file that is found to hold captions.
        file_column: the column or field that names the picture, where it is not found by its name.
        caption_column: the one that holds the caption, or a list of those that hold one each.
        class_column: the one that holds the class; by default "class".
        split_column: the one that holds the split; by default "split".
        classes: "auto": the captions file's, if it gives any; "folders": the whole path of the folder that a picture is
            in, without that of its split; "none".
        fit: "crop": the central square is kept; "pad": the whole picture, with white beside it.
        test_fraction: share of the pictures that make the split "test", chosen by a hash of their names, so that it
            stays the same when pictures are added; at least two pictures, where enough are left for training. A "split"
            in the captions file, or folders train/, test/ and val/ under the root, decide instead where they exist.
        partial: leave out captions whose picture is missing instead of rejecting them.
    """

    def __init__(
        self,
        root: str | None,
        *,
        captions: str | Sequence[str] | None = None,
        file_column: str = "",
        caption_column: str | Sequence[str] = (),
        class_column: str = "",
        split_column: str = "",
        classes: Classes = "auto",
        fit: Fit = "crop",
        test_fraction: float = 0.1,
        partial: bool = False,
    ) -> None:
        self._files = Files(root, "folder", "pictures and their captions")
        if classes not in get_args(Classes):
            raise UserError(f"folder: classes is {classes!r}; choose one of {', '.join(get_args(Classes))}")
        check_fit("folder", fit)
        check_test_fraction("folder", test_fraction)
        self._asked = listed(captions or ())
        self._columns = Columns(file_column, listed(caption_column), class_column, split_column)
        self._classes = classes
        self._fit = fit
        self._test_fraction = test_fraction
        self._partial = partial
        self._account = Account(0)

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, by name. Raises UserError where nothing is found, naming what was looked for."""
        check_split("folder", split)
        tree = self._files.tree()
        account = self._account = Account(len(tree.files) + len(tree.others))
        account.others.update(tree.others.values())
        pictures = [name for name in tree.files if name.lower().endswith(ENDINGS) and not is_hidden(name)]
        if not pictures:
            raise UserError(f"{self._files.root} holds no pictures ({', '.join(ENDINGS)}); {_instead(tree.files)}")
        entries, words, chosen = self._entries(tree.files, pictures)
        present = frozenset(pictures)
        splits = self._splits(entries, present, account)
        missing = {entry.file for entry in entries if not entry.fault and entry.file not in present}
        records = [
            self._record(entry, entry.file in present)
            for entry in entries
            if splits[entry.file] == split and not (self._partial and entry.file in missing)
        ]
        if missing and self._partial:
            account.note(f"{len(missing)} pictures that {chosen} names are missing, and were left out (partial).")
        count_files(account, tree.files, splits, words, chosen)
        return records

    def account(self, splits: Sequence[str]) -> Account:
        """Of all files under the root; see AccountingSource."""
        return self._account

    def picture(self, record: Record) -> bytes:
        """The file's bytes."""
        return self._files.read(record.source_id)

    def _entries(self, files: Sequence[str], pictures: Sequence[str]) -> tuple[list[Entry], set[str], str]:
        """(what is known of each picture, the files that say it, what to call them; "" for the pictures' own texts)."""
        names = PictureNames(pictures)
        captions = CaptionsFiles(self._files, self._columns, names)
        asked = [str(PurePosixPath(name)) for name in self._asked]
        chosen = [CaptionsFile(name, split) for name, split in chosen_splits(asked, split_in).items()]
        if not chosen:
            chosen = [CaptionsFile(name) for name in FIRST if name in files][:1]
        if not chosen:
            texts = PictureTexts(files, pictures)
            own = {picture: name for picture in pictures if (name := texts.of(picture)) is not None}
            words = {*own.values()}
            # JSON beside pictures may be about other things; then a file has the captions.
            if all(name.endswith(".json") for name in words):
                chosen = captions.found([name for name in files if name not in words])
            if words and not chosen:
                return [read_text(self._files, picture, own.get(picture)) for picture in pictures], words, ""
        if not chosen:
            looks = "".join(f"\n  {look}" for look in captions.looked_like(files))
            raise UserError(
                f"{self._files.root} holds {len(pictures)} pictures but no captions: no text files of the pictures "
                f"(such as {PurePosixPath(pictures[0]).with_suffix('.txt')}), and no table, JSON or parquet file that "
                f"names them. Found: {endings_of(files)}{looks}"
            )
        said = (entry for file in chosen for entry in captions.read(file))
        entries, resembled = placed(said, names)
        if resembled:
            first = next(iter(resembled))
            self._account.note(
                f"{len(resembled)} names were matched without their folder or ending: {printable(first)}, for example, "
                f"is {printable(resembled[first])}."
            )
        called = [file.name for file in chosen]
        for file in chosen:
            if unread := self._columns.unread(captions.columns(file)):
                self._account.note(
                    f"{file.name} has columns that are not read: {', '.join(unread)}. If one of them is a class or "
                    "split: --options class_column=NAME split_column=NAME."
                )
        return entries, {*called}, some_names(called)

    def _record(self, entry: Entry, present: bool) -> Record:
        return Record(
            key=key_of(entry.file),
            captions=entry.captions,
            class_name=self._class_of(entry),
            source_id=entry.file,
            pad=self._fit == "pad",
            fault=entry.fault or ("" if present else "the picture is missing"),
            present=present,
        )

    def _class_of(self, entry: Entry) -> str:
        if self._classes == "folders":
            folders = entry.file.split("/")[:-1]
            return "/".join(folders[1:] if split_of(entry.file) else folders)
        return entry.class_name if self._classes == "auto" else ""

    def _splits(self, entries: Sequence[Entry], present: Container[str], account: Account) -> dict[str, str]:
        """Name of the file of each entry -> its split, "" for those in none."""
        by_hash = self._by_hash(entries, present)
        if any(entry.split for entry in entries):
            given = {entry.file: entry.split for entry in entries}
            return {file: split or by_hash[file] for file, split in val_as_test(given, account).items()}
        return splits_by_folder([entry.file for entry in entries], account) or by_hash

    def _by_hash(self, entries: Sequence[Entry], present: Container[str]) -> dict[str, str]:
        test = {entry.file for entry in entries if fraction_of(entry.file) < self._test_fraction}
        if self._test_fraction:
            usable = [entry for entry in entries if not entry.fault and entry.file in present]
            test = _of_two_classes(test, {entry.file: self._class_of(entry) or entry.file for entry in usable})
        return {entry.file: "test" if entry.file in test else "train" for entry in entries}


def count_files(
    account: Account, files: Sequence[str], splits: Mapping[str, str], words: Container[str], chosen: str
) -> None:
    """Add what each of the files under the root is to `account`."""
    for name in files:
        if name in splits:
            if splits[name]:
                account.pictures[splits[name]] += 1
            else:
                account.others["pictures in no split: outside the folders train/, test/ and val/"] += 1
        elif name in words:
            account.others["with captions"] += 1
        elif is_hidden(name):
            account.others["hidden: their names, or their folders', begin with a dot"] += 1
        elif name.lower().endswith(ENDINGS):
            account.others[f"pictures without caption: {chosen} does not name them"] += 1
        elif name in FIRST:
            account.others[f"{name}, which is not read beside {chosen or 'the texts of the pictures'}"] += 1
        elif name.lower().endswith(".txt") and not chosen:
            account.others["texts without a picture of their name"] += 1
        else:
            account.others[of_ending(name)] += 1


def _instead(files: Sequence[str]) -> str:
    """What to do with a folder without pictures, by what is in it."""
    if any(name.lower().endswith(TARS) for name in files):
        return "it holds tars: pack it with the recipe webdataset"
    if any(name.lower().endswith(PARQUET) for name in files):
        return "it holds parquet files: if the pictures are in them, pack it with the recipe parquet"
    return f"it holds {endings_of(files)}; check --root"


def _of_two_classes(test: set[str], classes: dict[str, str]) -> set[str]:
    """`test` with the next pictures by their hash until two of the `classes` are in it; empty if training lacks two."""
    chosen = {classes[file] for file in test if file in classes}
    if len(chosen) >= _FEWEST_CLASSES:
        return test
    added = set(test)
    for file in sorted(classes, key=fraction_of):
        if len(chosen) < _FEWEST_CLASSES:
            added.add(file)
            chosen.add(classes[file])
    left = {class_name for file, class_name in classes.items() if file not in added}
    return added if min(len(chosen), len(left)) >= _FEWEST_CLASSES else set()
