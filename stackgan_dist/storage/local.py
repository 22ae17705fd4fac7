"""Files on a local file system, by their paths, which are taken literally.

Writes are atomic: a temporary name, fsync and rename. A disk that fails is not asked again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from stackgan_dist.errors import UserError
from stackgan_dist.storage.durable import new_file, sync, sync_folder


@dataclass(frozen=True)
class LocalFiles:
    """The local file system; what StoreFiles is for a store.

    A key is a path, absolute or relative to the working directory, as the user gave it.
    """

    scheme: str = ""
    """What the URLs of its files begin with: nothing, or file://."""

    def url(self, key: str) -> str:
        """What to call `key` in messages."""
        return self.scheme + key

    def path(self, key: str) -> Path:
        """The path of `key`."""
        return Path(key)

    def below(self, key: str, name: str) -> str:
        """The key of `name` in the folder `key`."""
        if "\0" in name:
            raise UserError(f"{name!r} is no file name: it holds a zero byte")
        return f"{key.rstrip('/')}/{name}"

    def above(self, key: str) -> str:
        """The key of the folder that `key` lies in."""
        return os.path.normpath(os.path.join(key, os.pardir))

    def read(self, key: str, accept: Callable[[bytes], bool] = lambda _: True) -> bytes:
        """The whole content; a disk is asked once, whether `accept` recognises what it gives or not."""
        return Path(key).read_bytes()

    def read_range(self, key: str, begin: int, size: int) -> bytes:
        """`size` bytes from `begin` on; OSError where the file ends before."""
        with Path(key).open("rb") as file:
            file.seek(begin)
            data = file.read(size)
        if len(data) != size:
            raise OSError(f"{len(data)} of {size} bytes from {begin} on are there; it has been cut short")
        return data

    def read_settled(self, key: str) -> bytes:
        """The whole content: a disk gives what was written."""
        return self.read(key)

    def write(self, key: str, data: bytes) -> None:
        """Replace the file atomically and durably; folders are made as needed."""
        self.write_file(key, lambda file: file.write(data))

    def write_file(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        """As `write`, what `fill` writes to the file that it is given; nothing of it is kept in memory."""
        path = Path(key)
        file = _new_file_for(path)
        try:
            with file:
                fill(file)
                file.flush()
                sync(file.fileno(), path.parent)
            os.replace(file.name, path)
            sync_folder(path.parent)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """The file itself."""
        yield Path(key)

    def append_line(self, key: str, line: str) -> None:
        """Add `line` to the text file, in one piece; behind a line that was cut off it begins one of its own."""
        with Path(key).open("a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
            rest = memoryview((b"" if not size or file.read(1) == b"\n" else b"\n") + line.encode() + b"\n")
            while rest:  # a disk that is full takes a part, and then refuses the rest
                rest = rest[file.write(rest) :]

    def names(self, key: str) -> list[str]:
        """The names directly below; none where there is no such folder."""
        try:
            return os.listdir(key)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def entries(self, key: str) -> dict[str, int | None]:
        """The names directly below and the bytes of each, None for a folder; empty where there is no such folder."""
        found: dict[str, int | None] = {}
        for name in self.names(key):
            path = Path(key, name)
            with suppress(FileNotFoundError):  # another process has removed it, or a link leads nowhere
                found[name] = None if path.is_dir() else path.stat().st_size
        return found

    def files_below(self, key: str) -> list[str]:
        """Names of all files at any depth, relative to the folder `key`; linked folders are not entered."""
        return [os.path.relpath(os.path.join(folder, name), key) for folder, _, names in os.walk(key) for name in names]

    def exists(self, key: str) -> bool:
        """Whether there is a file or folder."""
        return os.path.exists(key)

    def is_folder(self, key: str) -> bool:
        """Whether there is a folder."""
        return os.path.isdir(key)

    def marks(self, key: str) -> list[str]:
        """What changes when the file is replaced: its size and time."""
        known = os.stat(key)
        return [str(known.st_size), str(known.st_mtime)]

    def remove(self, key: str) -> None:
        """Remove the file, or the folder with all that it holds; nothing happens when there is none."""
        while os.path.lexists(key):
            with suppress(FileNotFoundError):  # another process removes it, or something in it, at the same time
                if os.path.isdir(key) and not os.path.islink(key):
                    shutil.rmtree(key)
                else:
                    os.unlink(key)

    def remove_temporary(self, key: str) -> None:
        """Remove what a killed `write` left directly in the folder `key`."""
        for name in self.names(key):
            if name.startswith(".") and name.endswith(".tmp"):
                Path(key, name).unlink(missing_ok=True)

    def move_in(self, file: Path, key: str) -> None:
        """Give the finished `file`, which lies beside `key` on the same disk, that name."""
        file.replace(key)


def _new_file_for(path: Path) -> BinaryIO:
    """A temporary file beside `path`, in a folder that is made as needed."""
    tries = 10
    while True:
        tries -= 1
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return new_file(path.parent, f".{path.name}.", ".tmp")
        except (FileExistsError, FileNotFoundError):
            if not tries:
                raise
            # Another process has removed the folder while it was empty, as output_folder does.
