"""The files under a source's root, on any fsspec URL, by their names relative to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record
from stackgan_dist.storage.folder import Folder


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
        self._layout = layout

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
            advice = hint or f"--root must hold {self._layout}"
            raise UserError(
                f"there is no {self.url(name)} ({error.strerror or type(error).__name__}); {advice}"
            ) from error

    def names(self, folder: str = "") -> list[str]:
        """Names of all files in `folder` and below, relative to the root, sorted; UserError when it is not there."""
        below = self.folder / folder if folder else self.folder
        if not below.is_there():
            raise UserError(f"there is no folder {below}; --root must hold {self._layout}")
        return [f"{folder}/{name}" if folder else name for name in below.files_below()]


def _plain(name: str) -> str:
    """`name` as a foreign file or an option gives it, without the parts that mean nothing: ./a//b.jpg is a/b.jpg."""
    return str(PurePosixPath(name))


def is_inside(name: str) -> bool:
    """Whether a relative name given by a foreign file stays below the folder that it is relative to."""
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\0" not in name


def settle_missing(records: Sequence[Record], present: Collection[str], *, partial: bool, what: str) -> list[Record]:
    """`records` with a fault for each one whose picture, `source_id`, is not `present`.

    With `partial` these are left out instead, and counted on the screen: for people who have a part of a data set.
    `what` names the split in that line and in the UserError for a split of which nothing is there.
    """
    missing = {record.key for record in records if not record.fault and record.source_id not in present}
    if not any(record.source_id in present for record in records):
        example = f" (the first is {records[0].source_id})" if records else ""
        raise UserError(f"{what}: none of the {len(records)} pictures is there{example}; unpack them under --root")
    if partial:
        if missing:
            print(f"{what}: {len(missing)} of {len(records)} pictures are missing and left out", flush=True)
        return [record for record in records if record.key not in missing]
    fault = "the picture is missing; unpack it, or pack what is there with --options partial=true"
    return [dataclasses.replace(record, fault=fault) if record.key in missing else record for record in records]
