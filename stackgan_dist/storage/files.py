"""Files on any fsspec URL: `data/painted`, `file:///...`, `s3://bucket/...`, `gs://...`, `az://...`, `memory://...`.

A plain path is a local file. Writes are atomic: a temporary name, fsync and rename on a local file system, one PUT
on an object store; a reader sees the old file, the new one or none. A store that fails is asked again, a disk is not.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, TypeVar

import fsspec
from fsspec.core import url_to_fs

from stackgan_dist.errors import UserError
from stackgan_dist.storage.durable import set_mode, sync, sync_folder
from stackgan_dist.storage.retry import Attempts, Patience, StoreError, describe

T = TypeVar("T")

S3_TIMEOUTS = {"connect_timeout": 5, "read_timeout": 15}
"""Seconds without a connection, or without a byte, after which a request has failed."""
_PATIENCE = Patience(attempts=5)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "https": "https"}


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system that serves `url`, and the path of `url` on it.

    Raises UserError for a scheme that nothing serves, or whose package is not installed.
    """
    scheme = url.partition("://")[0]
    # Retries are made here, where they are counted; s3fs keeps those of the parts of a large upload.
    options: dict[str, Any] = (
        {"config_kwargs": {**S3_TIMEOUTS, "retries": {"total_max_attempts": 1}}, "use_listings_cache": False}
        if scheme in ("s3", "s3a")
        else {}
    )
    try:
        return url_to_fs(url, **options)
    except ImportError as error:
        extra = f" (pip install 'stackgan_dist[{_EXTRAS[scheme]}]')" if scheme in _EXTRAS else ""
        raise UserError(f"cannot open {url}: {error}{extra}") from error
    except ValueError as error:
        raise UserError(f"cannot open {url}: {error}") from error


def join(url: str, *names: str) -> str:
    """`url` with `names` appended as folders or files."""
    return "/".join([url.rstrip("/") or "/", *names])


def local_path(url: str) -> Path | None:
    """The path of `url` where it lies on a local file system, else None."""
    if "://" not in url:
        return Path(url)
    fs, path = open_filesystem(url)
    return Path(path) if "file" in _protocols(fs) else None


def read_bytes(url: str, accept: Callable[[bytes], bool] = lambda _: True) -> bytes:
    """The whole content of `url`; FileNotFoundError when there is nothing.

    What a store sends and `accept` does not recognise is read once more, since a network may have altered it; the
    caller judges what comes then. Raises StoreError when the store fails lastingly.
    """
    path = local_path(url)
    if path is not None:
        return path.read_bytes()
    fs, remote = open_filesystem(url)

    def whole() -> bytes:
        data = fs.cat_file(remote)
        size = fs.info(remote).get("size")
        if size is not None and len(data) != size:  # a body may end early and look complete
            raise OSError(f"the store sent {len(data)} of {size} bytes")
        return data

    data = patiently(f"read {url}", whole)
    return data if accept(data) else patiently(f"read {url}", whole)


def read_range(url: str, begin: int, size: int) -> bytes:
    """`size` bytes of `url` from `begin` on.

    Raises OSError where the file ends before, or is not there; StoreError when the store fails lastingly.
    """
    fs, path = open_filesystem(url)

    def part() -> bytes:
        data = fs.cat_file(path, start=begin, end=begin + size)
        if len(data) != size:
            raise OSError(f"{len(data)} of {size} bytes from {begin} on are there; it has been cut short")
        return data

    return part() if "file" in _protocols(fs) else patiently(f"read {url}", part)


def read_settled(url: str) -> bytes:
    """The content of `url`, an unsigned file of a store, once two readings in a row agree on it."""
    data = read_bytes(url)
    if local_path(url) is not None:
        return data
    attempts = Attempts(f"read {url}", _PATIENCE)
    while (again := read_bytes(url)) != data:
        attempts.failed("two readings in a row differed")
        data = again
    return data


def write_bytes(url: str, data: bytes) -> None:
    """Write `data` to `url` atomically and durably; folders are made as needed.

    Raises OSError on a local file system, StoreError when a store fails lastingly.
    """
    path = local_path(url)
    if path is None:
        _put(url, data)
    else:
        _replace(path, lambda file: file.write(data))


def write_file(url: str, fill: Callable[[BinaryIO], object]) -> None:
    """As `write_bytes`, what `fill` writes to the file that it is given, from its beginning to its end.

    On a local file system nothing of it is kept in memory.
    """
    path = local_path(url)
    if path is None:
        content = io.BytesIO()  # whole, since a store that fails is sent it again
        fill(content)
        _put(url, content.getvalue())
    else:
        _replace(path, fill)


def _put(url: str, data: bytes) -> None:
    fs, remote = open_filesystem(url)
    if "https" in _protocols(fs):
        raise StoreError(f"cannot write {url}: a web server can only be read; give a folder, or s3://, gs://, az://")
    try:
        patiently(f"write {url}", lambda: fs.pipe_file(remote, data))
    except FileNotFoundError as error:
        raise StoreError(f"cannot write {url}: {error}; is the bucket's name right?") from error


def _replace(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            sync(file.fileno(), path.parent)
        set_mode(temporary, 0o644)  # mkstemp's 0600 would hide it from the group
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def append_line(url: str, line: str) -> None:
    """Add `line` to the text file at `url`, which is written anew where nothing can be appended."""
    path = local_path(url)
    if path is not None:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        return
    try:
        before = read_bytes(url)
    except FileNotFoundError:
        before = b""
    write_bytes(url, before + line.encode() + b"\n")


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
        if "file" in _protocols(fs):
            entries: list[dict[str, Any]] = fs.ls(path, detail=True)
        else:
            # A listing that breaks off, or whose continuation has expired, is begun anew.
            fs.invalidate_cache()
            entries = patiently(f"list {url}", lambda: fs.ls(path, detail=True))
    except (FileNotFoundError, NotADirectoryError):
        return []
    names = (entry["name"].rstrip("/") for entry in entries)
    return sorted(name.rsplit("/", 1)[-1] for name in names if name != path.rstrip("/"))


def remove(url: str) -> None:
    """Remove the file or folder at `url`; nothing happens when there is none."""
    fs, path = open_filesystem(url)
    if "file" in _protocols(fs):
        while fs.exists(path):
            try:
                fs.rm(path, recursive=True)
            except FileNotFoundError:
                continue  # another process removes it, or something in it, at the same time
        return
    try:
        files = patiently(f"list {url}", lambda: fs.find(path))
        patiently(f"remove {url}", lambda: fs.rm(path, recursive=True))
    except FileNotFoundError:
        return
    if "s3" in _protocols(fs):
        _remove_placeholders(fs, path, files)


def _remove_placeholders(fs: Any, path: str, files: list[str]) -> None:
    """Remove the folders of `files` from `path` down: some S3 servers (SeaweedFS) keep and list empty ones."""
    parents = {str(parent) for file in files for parent in PurePosixPath(file).parents}
    for folder in sorted((parent for parent in parents if f"{parent}/".startswith(f"{path}/")), key=len, reverse=True):
        bucket, _, key = folder.partition("/")
        patiently(f"remove {folder}", partial(fs.call_s3, "delete_object", Bucket=bucket, Key=f"{key}/"))


def exists(url: str) -> bool:
    """Whether there is a file or folder at `url`; StoreError when the store cannot tell."""
    fs, path = open_filesystem(url)
    if "file" in _protocols(fs):
        return fs.exists(path)
    try:
        fs.invalidate_cache()
        patiently(f"look at {url}", lambda: fs.info(path))
    except FileNotFoundError:
        return False
    return True


def patiently(work: str, action: Callable[[], T]) -> T:
    """`action()` on a store, asked again after a fault; what is not there, or not allowed, stays so."""
    attempts = Attempts(work, _PATIENCE)
    while True:
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError, FileExistsError):
            raise
        except (PermissionError, NotImplementedError) as error:
            attempts.made += 1
            raise attempts.give_up(describe(error)) from error
        except Exception as error:  # every store has its own family of transient errors
            final = type(error).__name__ == "NoCredentialsError" or getattr(error, "status", None) in (401, 403)
            attempts.failed(describe(error), at_most=1 if final else None)


def _protocols(fs: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
