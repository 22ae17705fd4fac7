"""Files on a store, by their keys, which are taken literally.

fsspec's rm, glob, expand_path, get, put and cat take a path that holds `*`, `?` or `[` for a pattern, and its URLs may
chain file systems by `::`. Here a path is made of the store's root and a key, and only calls that take one path as it
is are used: a tree is removed by listing it and deleting exactly what was listed. Every call is patient: a store that
fails is asked again.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from stackgan_dist.errors import UserError
from stackgan_dist.storage.connect import connected
from stackgan_dist.storage.retry import Attempts, StoreError, patiently

_KEYS_PER_DELETE = 1000
"""S3 takes no more at once."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VERSION = re.compile(r"\?versionid=", re.IGNORECASE)


class StoreFiles:
    """The files of one store (a bucket, a server) by their keys.

    Connected when it is made, and anew in the child of a fork and where it is unpickled.

    Args:
        root: the store's URL, e.g. s3://bucket.

    Raises:
        UserError: nothing serves its scheme, or the package that does is not installed.
    """

    def __init__(self, root: str) -> None:
        self.root = root
        self._connect()

    def _connect(self) -> None:
        self._fs, self._top = connected(self.root)
        self.protocols = (self._fs.protocol,) if isinstance(self._fs.protocol, str) else tuple(self._fs.protocol)
        self._process = os.getpid()  # last: other threads connect too until it is known

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StoreFiles) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.root = state["root"]
        self._connect()

    @property
    def fs(self) -> Any:
        """fsspec's file system."""
        if self._process != os.getpid():  # its event loop's thread does not survive a fork
            self._connect()
        return self._fs

    def url(self, key: str) -> str:
        """What to call `key` in messages."""
        return f"{self.root}/{key}" if key else self.root

    def location(self, key: str) -> str:
        """The path of `key` on `fs`."""
        return f"{self._top}/{key}" if key else self._top

    def path(self, key: str) -> Path | None:
        """None: a store's files have no local path."""
        return None

    def below(self, key: str, name: str) -> str:
        """The key of `name` in the folder `key`; UserError for a name that cannot be one of this store's."""
        return self.checked(f"{key}/{name}" if key else name)

    def above(self, key: str) -> str:
        """The key of the folder that `key` lies in."""
        return key.rpartition("/")[0]

    def checked(self, key: str) -> str:
        """`key`, if it means one object and can be sent."""
        url = self.url(key)
        if not {".", ".."}.isdisjoint(key.split("/")):
            raise UserError(f"{url} has a part '.' or '..', which no store follows; give the URL without it")
        if "\\" in key:
            raise UserError(f"{url} has a backslash, which some stores (Azure, SeaweedFS) take for a slash; rename it")
        if _CONTROL.search(key):
            raise UserError(f"{url!r} holds control characters, which listings of stores cannot hold; rename it")
        if any(0xD800 <= ord(character) < 0xE000 for character in key):
            raise UserError(f"{url!r} is not valid Unicode, which keys of stores must be; rename it")
        if not {"s3", "abfs"}.isdisjoint(self.protocols) and _VERSION.search(key):
            raise UserError(f"{url} names a version of an object by '?versionId='; name the object alone")
        return key

    def read(self, key: str, accept: Callable[[bytes], bool] = lambda _: True) -> bytes:
        """The whole content; what `accept` does not recognise is read once more: a network may have altered it."""
        path, work = self.location(key), f"read {self.url(key)}"

        def whole() -> bytes:
            data: bytes = self.fs.cat_file(path)
            size = self.fs.info(path).get("size")
            if size is not None and len(data) != size:  # a body may end early and look complete
                raise OSError(f"the store sent {len(data)} of {size} bytes")
            return data

        data = patiently(work, whole)
        return data if accept(data) else patiently(work, whole)

    def read_range(self, key: str, begin: int, size: int) -> bytes:
        """`size` bytes from `begin` on."""

        def part() -> bytes:
            data: bytes = self.fs.cat_file(self.location(key), start=begin, end=begin + size)
            if len(data) != size:
                raise OSError(f"{len(data)} of {size} bytes from {begin} on are there; it has been cut short")
            return data

        return patiently(f"read {self.url(key)}", part)

    def read_settled(self, key: str) -> bytes:
        """The whole content, once two readings in a row agree on it."""
        data = self.read(key)
        attempts = Attempts(f"read {self.url(key)}")
        while (again := self.read(key)) != data:
            attempts.failed("two readings in a row differed")
            data = again
        return data

    def write(self, key: str, data: bytes) -> None:
        """Replace the object by one PUT."""
        self._send(key, "write", lambda: self.fs.pipe_file(self.location(key), data))

    def write_file(self, key: str, fill: Callable[[BinaryIO], object]) -> None:
        """As `write`, what `fill` writes to the file that it is given."""
        content = io.BytesIO()  # whole, since a store that fails is sent it again
        fill(content)
        self.write(key, content.getvalue())

    def append_line(self, key: str, line: str) -> None:
        """Add `line` to the text file, which is written anew: nothing can be appended to an object.

        Behind a line that was cut off it begins one of its own.
        """
        try:
            before = self.read(key)
        except FileNotFoundError:
            before = b""
        if before and not before.endswith(b"\n"):
            before += b"\n"
        self.write(key, before + line.encode() + b"\n")

    def move_in(self, file: Path, key: str) -> None:
        """Send the finished local `file` to `key`."""
        self._send(key, "upload", lambda: self.fs.put_file(str(file), self.location(key)))

    @contextmanager
    def local_copy(self, key: str) -> Iterator[Path]:
        """A copy on this node, which is gone afterwards."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "copy")
            patiently(f"read {self.url(key)}", lambda: self.fs.get_file(self.location(key), str(path)))
            yield path

    def _send(self, key: str, verb: str, action: Callable[[], object]) -> None:
        url = self.url(key)
        if "https" in self.protocols:
            raise StoreError(
                f"cannot write {url}: a web server can only be read; give a folder, or s3://, gs://, az://"
            )
        try:
            patiently(f"{verb} {url}", action)
        except FileNotFoundError as error:
            raise StoreError(f"cannot {verb} {url}: {error}; is the bucket's name right?") from error

    def entries(self, key: str) -> dict[str, int | None]:
        """The names directly below and the bytes of each, None for a folder; empty where there is no such folder."""
        path = self.location(key)
        self.fs.invalidate_cache()
        try:
            # A listing that breaks off, or whose continuation has expired, is begun anew.
            listed = patiently(f"list {self.url(key)}", lambda: self.fs.ls(path, detail=True))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        found = ((entry["name"].rstrip("/"), entry) for entry in listed)
        return {
            name[len(path) + 1 :]: None if entry["type"] == "directory" else int(entry["size"] or 0)
            for name, entry in found
            if _is_below(name, path)
        }

    def names(self, key: str) -> list[str]:
        """The names directly below; none where there is no such folder."""
        return list(self.entries(key))

    def files_below(self, key: str) -> list[str]:
        """Names of all files at any depth, relative to the folder `key`."""
        path = self.location(key)
        return [name[len(path) + 1 :] for name in self._found(key) if _is_below(name, path) and name[-1] != "/"]

    def _found(self, key: str) -> list[str]:
        """The paths of all files at any depth, or that of the file `key`; s3fs lists placeholders of folders too."""
        self.fs.invalidate_cache()
        try:
            return patiently(f"list {self.url(key)}", lambda: list(self.fs.find(self.location(key))))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def exists(self, key: str) -> bool:
        """Whether there is a file or folder; StoreError when the store cannot tell."""
        self.fs.invalidate_cache()
        try:
            self.info(key)
        except FileNotFoundError:
            return False
        return True

    def is_folder(self, key: str) -> bool:
        """Whether anything lies below `key`."""
        try:
            return bool(self.info(key)["type"] == "directory")
        except FileNotFoundError:
            return False

    def marks(self, key: str) -> list[str]:
        """What changes when the object is replaced: its size, its time or its tag."""
        known = self.info(key)
        return [str(known.get(mark)) for mark in ("size", "mtime", "LastModified", "ETag", "etag")]

    def info(self, key: str) -> dict[str, Any]:
        """What the store knows of the file or folder."""
        return patiently(f"look at {self.url(key)}", lambda: dict(self.fs.info(self.location(key))))

    def remove(self, key: str) -> None:
        """Remove the file, and whatever lies below it as a folder; nothing happens when there is none."""
        path = self.location(key)
        found = [name for name in self._found(key) if name == path or _is_below(name, path)]
        if not found:
            return
        files = [*found, *([path] if key and path not in found else [])]  # a file may have the name of a folder
        folders = _folders_of(files, path)
        if not key:
            folders.remove(path)  # the bucket stays
        if "s3" in self.protocols:
            self._remove_s3(path, files, folders)
            return
        for name in files:
            with suppress(FileNotFoundError):
                patiently(f"remove {name}", partial(self.fs.rm_file, name))
        for folder in folders:
            with suppress(FileNotFoundError, NotImplementedError):  # most stores have no folders of their own
                self.fs.rmdir(folder)

    def _remove_s3(self, path: str, files: list[str], folders: list[str]) -> None:
        """Remove exactly these objects, and then the placeholders of these folders."""
        bucket, top, _ = self.fs.split_path(path)
        cut = len(path) - len(top) if top else len(path) + 1  # s3fs would cut more off a key that holds ?versionId=
        for begin in range(0, len(files), _KEYS_PER_DELETE):
            objects = [{"Key": name[cut:]} for name in files[begin : begin + _KEYS_PER_DELETE]]
            patiently(f"remove {path}", partial(self._delete_objects, bucket, objects))
        for folder in folders:  # some servers (SeaweedFS) keep and list empty ones
            delete = partial(self.fs.call_s3, "delete_object", Bucket=bucket, Key=f"{folder[cut:]}/")
            patiently(f"remove {folder}", delete)

    def _delete_objects(self, bucket: str, objects: list[dict[str, str]]) -> None:
        answer = self.fs.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for error in answer.get("Errors", []):
            kind = PermissionError if error.get("Code") == "AccessDenied" else OSError
            raise kind(f"{error.get('Code')} for {error.get('Key')}: {error.get('Message')}")

    def remove_temporary(self, key: str) -> None:
        """Nothing: a killed `write` leaves nothing on a store."""


def _is_below(name: str, path: str) -> bool:
    return name.startswith(f"{path}/") and len(name) > len(path) + 1


def _folders_of(files: list[str], path: str) -> list[str]:
    """`path` and the folders below it that `files` lie in, the deepest first."""
    folders = {path}
    for file in files:
        folder = file.rpartition("/")[0]
        while _is_below(folder, path):
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return sorted(folders, key=len, reverse=True)
