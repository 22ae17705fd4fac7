"""Files on any fsspec URL: `data/painted`, `file:///...`, `s3://bucket/...`, `memory://...`.

A plain path is a local file. Writes are atomic: a temporary name, fsync and rename on a local file system, one PUT
on an object store; a reader sees the old file, the new one or none.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import fsspec
from fsspec.core import url_to_fs

from stackgan_dist.errors import UserError


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system that serves `url`, and the path of `url` on it.

    Raises UserError for a scheme that nothing serves, or whose package is not installed.
    """
    try:
        return url_to_fs(url)
    except ImportError as error:
        extra = " (pip install 'stackgan_dist[s3]')" if url.startswith("s3:") else ""
        raise UserError(f"cannot open {url}: {error}{extra}") from error
    except ValueError as error:
        raise UserError(f"cannot open {url}: {error}") from error


def join(url: str, *names: str) -> str:
    """`url` with `names` appended as folders or files."""
    return "/".join([url.rstrip("/") or "/", *names])


def local_path(url: str) -> Path | None:
    """The path of `url` where it lies on a local file system, else None."""
    fs, path = open_filesystem(url)
    return Path(path) if "file" in _protocols(fs) else None


def read_bytes(url: str) -> bytes:
    """The whole content of `url`; FileNotFoundError when there is nothing."""
    fs, path = open_filesystem(url)
    return fs.cat_file(path)


def write_bytes(url: str, data: bytes) -> None:
    """Write `data` to `url` atomically and durably; folders are made as needed."""
    path = local_path(url)
    if path is None:
        fs, remote = open_filesystem(url)
        fs.pipe_file(remote, data)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's 0600 would hide it from the group
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary(url: str) -> None:
    """Remove what a killed `write_bytes` left directly under `url`; on an object store it leaves nothing."""
    path = local_path(url)
    if path is not None and path.is_dir():
        for leftover in path.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)


def list_names(url: str) -> list[str]:
    """Names of the files and folders directly under `url`, sorted; none when there is no such folder."""
    fs, path = open_filesystem(url)
    try:
        entries: list[dict[str, Any]] = fs.ls(path, detail=True, refresh=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry in entries)


def remove(url: str) -> None:
    """Remove the file or folder at `url`; nothing happens when there is none."""
    fs, path = open_filesystem(url)
    if fs.exists(path):
        fs.rm(path, recursive=True)


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
