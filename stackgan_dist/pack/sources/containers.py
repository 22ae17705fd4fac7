"""Sources whose files hold many pictures each, tars or parquet files, read where they lie.

Every file is read once from end to end, to list what is in it, and each picture once more, by its range. What was
found can be kept: then parts of a pack share this work, and one that is started again does not repeat it. Files whose
pictures have no range of their own, such as compressed tars, are unpacked beside what is kept.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.pack.sources.account import Account, endings_of, of_ending
from stackgan_dist.pack.sources.files import Files, Tree
from stackgan_dist.pack.sources.fit import Fit, check_fit
from stackgan_dist.pack.sources.names import fraction_of
from stackgan_dist.pack.sources.splits import check_split, check_test_fraction
from stackgan_dist.storage.folder import Folder

_AT_ONCE = 8
_LISTING_FORMAT = 2
"""Of what is kept of a file: one of another format is made anew."""


@dataclass(frozen=True)
class Found:
    """What a file holds."""

    records: list[Record]
    others: Counter[str]
    """What else is in it."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """What a user should know of it, in whole sentences."""


class Containers(ABC):
    """Files that each hold many pictures with captions.

    Args:
        files: those under the root.
        test_fraction: the share of the split "test", where nothing else decides.
        fit: "crop": the central square is kept; "pad": the whole picture, with white beside it.
    """

    source: ClassVar[str]
    """Its name in a recipe."""
    thing: ClassVar[str]
    """What the files are called, of several."""
    endings: ClassVar[tuple[str, ...]]
    """Their endings, in lower case."""

    def __init__(self, files: Files, test_fraction: float, fit: Fit) -> None:
        self._files = files
        check_test_fraction(self.source, test_fraction)
        check_fit(self.source, fit)
        self._fit = fit
        self._test_fraction = test_fraction
        self._kept: Folder | None = None
        self._unpacked: dict[str, str] = {}
        """Name of a file that has to be unpacked -> name of what is made of it, in the kept folder."""
        self._account = Account(0)
        """Of the files under the root."""
        self._inside: dict[str, Account] = {}
        """Split -> of what is in its files."""

    def keep_listing(self, folder: str) -> None:
        """Keep what is found in each file in `folder`, a URL, and take from there what lies there already."""
        self._kept = Folder.at(folder)

    def records(self, split: str) -> Sequence[Record]:
        """The records of `split`, in the order of the files. Raises UserError for a file that is cut short."""
        check_split(self.source, split)
        tree = self._tree()
        account = self._account = Account(len(tree.files) + len(tree.others))
        account.others.update(tree.others.values())
        splits = self._splits([name for name in tree.files if name.lower().endswith(self.endings)], account)
        if not splits:
            raise UserError(
                f"there are no {self.thing} ({', '.join(self.endings)}) under {self._files.root}, but "
                f"{endings_of(tree.files)}; check --root, or pack pictures that are files with the recipe folder"
            )
        files = [name for name in splits if splits[name] in (split, None)]
        for name in tree.files:
            account.others[self.thing if name in splits else of_ending(name)] += 1
        # Parts that begin together each take another order, and find more and more of the files listed by others.
        order = random.sample(files, len(files))
        with ThreadPoolExecutor(_AT_ONCE) as threads:  # on an object store this is all waiting
            found = dict(zip(order, threads.map(self._list, order), strict=True))
        records = [
            record
            for name in files
            for record in found[name].records
            if splits[name] is not None or self._split_of(record) == split
        ]
        if self._fit == "pad":
            records = [dataclasses.replace(record, pad=True) for record in records]
        # Of a file that is divided, what are no pictures counts once.
        whole = [name for name in files if splits[name] is not None or split == "train"]
        others = sum((found[name].others for name in whole), Counter[str]())
        pictures = Counter({split: sum(record.present for record in records)})
        notes = [note for name in files for note in found[name].notes]
        self._inside[split] = Account(pictures[split] + others.total(), pictures=pictures, others=others, notes=notes)
        return records

    def account(self, splits: Sequence[str]) -> Account:
        """Of the files under the root, and of what is in those of `splits`; see AccountingSource."""
        whole = sum((self._inside[split] for split in splits), self._account)
        notes = [*dict.fromkeys(whole.notes)]  # a file that is divided is in several splits
        return dataclasses.replace(whole, thing=f"files, those in the {self.thing} among them", notes=notes)

    def picture(self, record: Record) -> bytes:
        """The picture, read out of its file."""
        assert record.extent is not None
        name, offset, size = record.extent
        folder, file = self._place(name)
        return folder.read_range(file, offset, size)

    def _tree(self) -> Tree:
        """All files under the root."""
        return self._files.tree()

    @abstractmethod
    def _splits(self, names: Sequence[str], account: Account) -> Mapping[str, str | None]:
        """Name of each file -> its split, "" for those in none; None where its records are divided."""

    @abstractmethod
    def _unpacked_ending(self, name: str) -> str:
        """The ending of what has to be made of a file before it is read; "" for one that is read where it lies."""

    @abstractmethod
    def _scan(self, name: str) -> Found:
        """What the file called `name` holds, having unpacked it if that is to be done and is not."""

    def _place(self, name: str) -> tuple[Folder, str]:
        """Where what is read for the file called `name` lies, and its name there."""
        if self._kept is not None and name in self._unpacked:
            return self._kept, self._unpacked[name]
        return self._files.folder, name

    def _split_of(self, record: Record) -> str:
        return "test" if fraction_of(record.source_id) < self._test_fraction else "train"

    def _list(self, name: str) -> Found:
        """What a file holds, scanned unless its listing is kept."""
        ending = self._unpacked_ending(name)
        if self._kept is None:
            if ending:
                raise ValueError(f"{name} is unpacked into the folder of keep_listing, which was not called")
            return self._scan(name)
        kept = self._digest(name)
        if ending:
            self._unpacked[name] = f"{kept}{ending}"
        try:
            if ending and not self._kept.exists(self._unpacked[name]):
                raise FileNotFoundError
            content = json.loads(self._kept.read(f"{kept}.json"))
            listed = [Record(**_with_tuples(fields)) for fields in content["records"]]
            return Found(listed, Counter(content["others"]), content.get("notes", []))
        except (FileNotFoundError, NotADirectoryError):
            found = self._scan(name)
        except (ValueError, TypeError, KeyError) as error:
            where = self._kept.url_of(f"{kept}.json")
            raise UserError(f"{where} is damaged ({error}); remove it, it will be made anew") from error
        records = [dataclasses.asdict(record) for record in found.records]
        listing = {"records": records, "others": found.others, "notes": found.notes}
        self._kept.write(f"{kept}.json", json.dumps(listing).encode())
        return found

    def _digest(self, name: str) -> str:
        """Of a file's place and state: one that was replaced has other marks."""
        try:
            marks = self._files.folder.marks(name)
        except FileNotFoundError as error:
            raise UserError(f"there is no {self._files.url(name)}; check --root") from error
        told = [_LISTING_FORMAT, self._files.url(name), *marks, *self._read_as()]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def _read_as(self) -> Sequence[Any]:
        """What the records of a file depend on beside the file itself."""
        return ()


def _with_tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
