"""Files on any URL: `data/painted`, `file:///...`, `s3://bucket/...`, `gs://...`, `az://...`, `memory://...`.

A plain path is a local file. Names are taken literally, whatever characters they hold. Writes are atomic: a temporary
name, fsync and rename on a local file system, one PUT on an object store; a reader sees the old file, the new one or
none. A store that fails is asked again, a disk is not.

These functions are for a URL that comes from a user and is needed once; what is handed on is a Folder (folder.py).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import fsspec

from stackgan_dist.errors import UserError
from stackgan_dist.storage.connect import split_url
from stackgan_dist.storage.local import LocalFiles
from stackgan_dist.storage.store import StoreFiles

Files = LocalFiles | StoreFiles
"""A file system, with the same operations on its keys wherever it is."""
_ONE_SLASH = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)(.*)")


def resolve(url: str) -> tuple[Files, str]:
    """The file system that serves `url`, and the key of `url` on it.

    Raises UserError for an empty URL, a scheme that nothing serves or whose package is not installed, and for a name
    that a store cannot have.
    """
    if not url:
        raise UserError("an empty name is no file or folder; give . for the current folder")
    if url == "~" or url.startswith("~/"):  # a shell leaves it as it is behind a flag's equals sign
        home = os.path.expanduser(url)  # noqa: PTH111 (Path's own raises where a user has no home)
        raise UserError(f"{url} was not expanded by the shell; write {home}, or ./{url} for a folder of that name")
    if (one_slash := _ONE_SLASH.match(url)) is not None:
        scheme, rest = one_slash.groups()
        meant = f"{scheme}://{'/' if scheme == 'file' else ''}{rest}"
        raise UserError(f"{url} is no URL and hardly a path; write {meant}, or ./{url} for a folder of that name")
    parts = split_url(url)
    if parts is None:
        scheme, separator, path = url.partition("://") if url.startswith(("file://", "local://")) else ("", "", url)
        return LocalFiles(scheme + separator), path.rstrip("/") or "/"
    try:
        files = StoreFiles(parts[0])
    except UserError as error:
        raise UserError(f"cannot open {url}: {error}") from error
    return files, files.checked(parts[1])


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """fsspec's file system for `url`, and the path of `url` on it, for calls that take a path literally."""
    files, key = resolve(url)
    if isinstance(files, LocalFiles):
        return fsspec.filesystem("file"), str(Path(key).absolute())
    return files.fs, files.location(key)


def join(url: str, *names: str) -> str:
    """`url` with `names` appended as folders or files."""
    return "/".join([url.rstrip("/") or "/", *names])


def local_path(url: str) -> Path | None:
    """The path of `url` where it lies on a local file system, else None, without looking for what serves the store."""
    if split_url(url) is not None:
        return None
    files, key = resolve(url)
    return files.path(key)


def on_this_disk(where: str, flag: str, why: str) -> Path:
    """The path of `where`, which is one or a file:// URL; UserError for a store's URL, that says `why` none will do."""
    path = local_path(where)
    if path is None:
        raise UserError(f"{flag} is {where}, which is not on a disk of this machine; {why}: give a path")
    return path


def read_bytes(url: str, accept: Callable[[bytes], bool] = lambda _: True) -> bytes:
    """The whole content of `url`; FileNotFoundError when there is nothing.

    What a store sends and `accept` does not recognise is read once more, since a network may have altered it; the
    caller judges what comes then. Raises StoreError when the store still fails after retries.
    """
    files, key = resolve(url)
    return files.read(key, accept)


def write_bytes(url: str, data: bytes) -> None:
    """Write `data` to `url` atomically and durably; folders are made as needed.

    Raises OSError on a local file system, StoreError when a store still fails after retries.
    """
    files, key = resolve(url)
    files.write(key, data)


def exists(url: str) -> bool:
    """Whether there is a file or folder at `url`; StoreError when the store cannot tell."""
    files, key = resolve(url)
    return files.exists(key)


def remove(url: str) -> None:
    """Remove the file or folder at `url`; nothing happens when there is none."""
    files, key = resolve(url)
    files.remove(key)
