"""A folder on any URL, resolved once and handed on; what lies in it is named literally.

    runs = Folder.at("s3://bucket/runs")
    run = runs / "exp[1]"
    run.write("DONE", b"")

A name is a path below the folder, such as `samples/step-1.png`; none leads out of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stackgan_dist.errors import UserError
from stackgan_dist.storage.files import Files, resolve


@dataclass(frozen=True)
class Folder:
    """A folder, which need not exist: a file system and where on it.

    On a local file system what fails raises OSError, on a store StoreError, once it has failed lastingly.
    """

    files: Files
    key: str

    @classmethod
    def at(cls, where: FolderLike) -> Folder:
        """The folder at a path or URL; raises UserError when nothing serves it."""
        return where if isinstance(where, Folder) else cls(*resolve(str(where)))

    def __truediv__(self, name: str) -> Folder:
        """The folder `name` in this one. Raises UserError for a name that leads elsewhere."""
        return Folder(self.files, self._key(name.rstrip("/")))

    def __str__(self) -> str:
        return self.url

    def __repr__(self) -> str:
        return f"Folder({self.url!r})"

    @property
    def url(self) -> str:
        """Its path or URL, for messages and records."""
        return self.files.url(self.key)

    @property
    def path(self) -> Path | None:
        """Its path where it lies on a local file system, else None."""
        return self.files.path(self.key)

    @property
    def parent(self) -> Folder:
        """The folder that it lies in."""
        return Folder(self.files, self.files.above(self.key))

    def url_of(self, name: str) -> str:
        """The path or URL of `name`, for messages and records."""
        return self.files.url(self._key(name))

    def read(self, name: str, accept: Callable[[bytes], bool] = lambda _: True) -> bytes:
        """The whole content of the file; FileNotFoundError when there is none.

        What a store sends and `accept` does not recognise is read once more, since a network may have altered it; the
        caller judges what comes then.
        """
        return self.files.read(self._key(name), accept)

    def read_range(self, name: str, begin: int, size: int) -> bytes:
        """`size` bytes of the file from `begin` on; OSError or StoreError where it ends before."""
        return self.files.read_range(self._key(name), begin, size)

    def read_settled(self, name: str) -> bytes:
        """The content of a file of which no digest is known, on a store once two readings in a row agree on it."""
        return self.files.read_settled(self._key(name))

    def write(self, name: str, data: bytes) -> None:
        """Replace the file atomically and durably; folders are made as needed."""
        self.files.write(self._key(name), data)

    def write_file(self, name: str, fill: Callable[[BinaryIO], object]) -> None:
        """As `write`, what `fill` writes to the file that it is given, from its beginning to its end."""
        self.files.write_file(self._key(name), fill)

    def move_in(self, file: Path, name: str) -> None:
        """Give the finished local `file` this name, whole or not at all; on a store a copy of it.

        Where the folder is local, `file` must lie on the same file system.
        """
        self.files.move_in(file, self._key(name))

    def local_copy(self, name: str) -> AbstractContextManager[Path]:
        """The path of the file on this node while inside: its own, or that of a copy of it."""
        return self.files.local_copy(self._key(name))

    def append_line(self, name: str, line: str) -> None:
        """Add `line` to the text file, which a store writes anew."""
        self.files.append_line(self._key(name), line)

    def names(self) -> list[str]:
        """The names of the files and folders directly below, sorted; none where there is no such folder."""
        return sorted(self.files.names(self.key))

    def sizes(self) -> dict[str, int]:
        """The names of the files directly below, and their bytes."""
        return {name: size for name, size in self.files.entries(self.key).items() if size is not None}

    def files_below(self) -> list[str]:
        """The names of all files at any depth, sorted."""
        return sorted(self.files.files_below(self.key))

    def walk(self, depth: int) -> Iterator[tuple[str, Folder]]:
        """This folder, by the name "", and those below it down to `depth`, by their names.

        What others have put into a store under names that are refused here is passed over.
        """
        yield "", self
        if not depth:
            return
        for name in sorted(name for name, size in self.files.entries(self.key).items() if size is None):
            try:
                inner = self / name
            except UserError:
                continue
            for below, folder in inner.walk(depth - 1):
                yield f"{name}/{below}".rstrip("/"), folder

    def exists(self, name: str) -> bool:
        """Whether there is a file or folder of that name."""
        return self.files.exists(self._key(name))

    def is_there(self) -> bool:
        """Whether there is such a folder."""
        return self.files.is_folder(self.key)

    def marks(self, name: str) -> list[str]:
        """What changes when the file is replaced, as far as the file system tells: its size, time or tag."""
        return self.files.marks(self._key(name))

    def remove(self, name: str) -> None:
        """Remove the file, or the folder with all that it holds; nothing happens when there is none."""
        self.files.remove(self._key(name))

    def remove_temporary(self) -> None:
        """Remove what a killed `write` left directly in this folder."""
        self.files.remove_temporary(self.key)

    def _key(self, name: str) -> str:
        wrong = next((part for part in name.split("/") if part in ("", ".", "..")), None)
        if wrong is not None:
            what = f"the part {wrong!r}" if wrong else "an empty part"
            raise UserError(f"{name!r} is no name in {self.url}: it has {what}; give another one")
        return self.files.below(self.key, name)


FolderLike = Folder | str | Path
"""What `Folder.at` takes."""
