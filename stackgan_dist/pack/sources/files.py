"""The files under a source's root, on any fsspec URL, by their names relative to it."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import SOURCES, Record
from stackgan_dist.pack.sources.account import Account
from stackgan_dist.pack.sources.names import Names
from stackgan_dist.storage.folder import Folder


@dataclass(frozen=True)
class Tree:
    """What lies in a folder and below it."""

    files: list[str]
    """Their names, sorted."""
    others: dict[str, str]
    """Name of what can be found but not read as a file -> what it is."""

    def account(self, pictures: Mapping[str, int], whose: str) -> Account:
        """Of it, where `pictures` {split: how many} are those that `whose` names, and nothing else is read."""
        account = Account(len(self.files) + len(self.others), pictures=Counter(pictures))
        account.others.update(self.others.values())
        account.others[f"that {whose} do not name, in the splits packed here"] = len(self.files) - sum(
            pictures.values()
        )
        return account


class Files:
    """The files under `root`.

    Args:
        root: URL of the folder, as --root gives it.
        source: name of the source, for messages.
        layout: what must be in the folder, for messages.

    Raises UserError without a root.
    """

    def __init__(self, root: str | None, source: str, layout: str) -> None:
        if root is None:
            raise UserError(f"{source} reads files: add --root DIR (or a URL) with {layout} in it")
        self.root = root
        self.folder = Folder.at(root)
        self._wanted = f"{'--root' if source in SOURCES else 'it'} must hold {layout.rstrip(',')}"

    def url(self, name: str) -> str:
        """URL of the file or folder `name`."""
        return (self.folder / _plain(name)).url if name else self.root

    def read(self, name: str) -> bytes:
        """The content of a file. Raises OSError."""
        return self.folder.read(_plain(name))

    def has(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""
        return self.folder.exists(_plain(name))

    def needed(self, name: str, hint: str = "") -> bytes:
        """The content of a file that must be there; UserError when it is not."""
        try:
            return self.read(name)
        except OSError as error:
            self._check_root()
            raise UserError(
                f"there is no {self.url(name)} ({error.strerror or type(error).__name__}); {hint or self._wanted}"
            ) from error

    def names(self, folder: str = "") -> list[str]:
        """Names of all files in `folder` and below, relative to the root, sorted; UserError when it is not there."""
        return self.tree(folder).files

    def tree(self, folder: str = "") -> Tree:
        """What is in `folder` and below, by names relative to the root; UserError when it is not there.

        On a disk, links to folders are followed; a folder that has been read already (a loop) is named instead.
        """
        below = self.folder / folder if folder else self.folder
        if not below.is_there():
            self._check_root()
            raise UserError(f"there is no folder {below}; {self._wanted}")
        prefix = f"{folder}/" if folder else ""
        if below.path is None:
            return Tree([f"{prefix}{name}" for name in below.files_below()], {})
        found = dict(_walk(below.path, prefix))
        return Tree(
            sorted(name for name, kind in found.items() if not kind),
            {name: kind for name, kind in sorted(found.items()) if kind},
        )

    def _check_root(self) -> None:
        if not self.folder.is_there():
            raise UserError(f"there is no folder {self.folder}; {self._wanted}")


def _walk(top: Path, prefix: str) -> Iterator[tuple[str, str]]:
    """(name, "") of every file in `top` and below, and (name, what it is) of what is no file.

    Real folders are read before links, so that of two ways to a folder the shorter, real one gives its files' names.
    """
    read: set[tuple[int, int]] = set()
    real = [(top, prefix)]
    links: list[tuple[Path, str]] = []
    while real or links:
        folder, name = real.pop() if real else links.pop()
        try:
            seen = folder.stat()
            if (seen.st_dev, seen.st_ino) in read:
                yield name.rstrip("/"), "links to a folder that is read already"
                continue
            read.add((seen.st_dev, seen.st_ino))
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            raise UserError(f"cannot read the folder {folder}: {error.strerror}; change its mode or --root") from error
        for entry in entries:
            mode = _mode(entry)
            if stat.S_ISDIR(mode):
                (links if entry.is_symlink() else real).append((Path(entry.path), f"{name}{entry.name}/"))
            elif stat.S_ISREG(mode):
                yield f"{name}{entry.name}", ""
            else:
                yield f"{name}{entry.name}", "pipes, sockets or devices" if mode else "broken links"


def _mode(entry: os.DirEntry[str]) -> int:
    """What `entry` is, or what it links to; 0 for a link to nothing, or to itself."""
    try:
        return entry.stat().st_mode
    except OSError:
        return 0


def _plain(name: str) -> str:
    """`name` as a foreign file or an option gives it, without the parts that mean nothing: ./a//b.jpg is a/b.jpg."""
    return str(PurePosixPath(name))


def settle_missing(records: Sequence[Record], names: Sequence[str], *, partial: bool, what: str) -> list[Record]:
    """`records` with the names that their pictures have among `names`, and a fault for each whose picture is missing.

    With `partial` missing ones are left out instead, and counted on the screen: for people who have a part of a data
    set. `what` names the split in that line and in the UserError for a split of which nothing is there.
    """
    there = Names(names)
    taken: set[str] = set()
    settled = []
    missing = 0
    for record in records:
        name = there.find(record.source_id)
        if name is not None:
            settled.append(dataclasses.replace(record, source_id=name, present=name not in taken))
            taken.add(name)
        elif record.fault:
            settled.append(dataclasses.replace(record, present=False))
        else:
            missing += 1
            fault = "the picture is missing; unpack it, or pack what is there with --options partial=true"
            if not partial:
                settled.append(dataclasses.replace(record, fault=fault, present=False))
    if not taken:
        example = f" (the first is {records[0].source_id})" if records else ""
        raise UserError(f"{what}: none of the {len(records)} pictures is there{example}; unpack them under --root")
    if partial and missing:
        print(f"{what}: {missing} of {len(records)} pictures are missing and left out", flush=True)
    return settled
