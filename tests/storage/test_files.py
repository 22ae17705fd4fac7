"""Files on fsspec URLs: the same on a disk and on an object store, and never half written."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.storage import connect
from stackgan_dist.storage.files import join, local_path, read_bytes, remove, write_bytes
from stackgan_dist.storage.folder import Folder


@pytest.fixture(params=["path", "file", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty folder, as a plain path, a file:// URL and an object store's URL."""
    if request.param == "memory":
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()
    else:
        yield str(tmp_path) if request.param == "path" else tmp_path.as_uri()


def test_what_is_written_is_read_listed_and_removed(root: str) -> None:
    file = join(root, "a", "b", "file.bin")
    write_bytes(file, b"one")
    assert read_bytes(file) == b"one"
    write_bytes(file, b"the second, which is longer")
    assert read_bytes(file) == b"the second, which is longer"
    write_bytes(join(root, "a", "other"), b"")
    assert Folder.at(join(root, "a")).names() == ["b", "other"]
    assert Folder.at(join(root, "a", "b")).names() == ["file.bin"]
    remove(join(root, "a", "b"))
    assert Folder.at(join(root, "a")).names() == ["other"]
    with pytest.raises(FileNotFoundError):
        read_bytes(file)


def test_what_is_not_there_lists_nothing_and_can_be_removed(root: str) -> None:
    assert Folder.at(join(root, "nothing")).names() == []
    remove(join(root, "nothing"))
    with pytest.raises(FileNotFoundError):
        read_bytes(join(root, "nothing"))


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    file = tmp_path / "file.bin"
    write_bytes(str(file), b"old")

    def fail(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, fault, fail)
    with pytest.raises(OSError, match="No space"):
        write_bytes(str(file), b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file.bin": b"old"}


def test_a_local_write_is_on_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda old, new: (calls.append("rename"), replace(old, new)))
    write_bytes(str(tmp_path / "file"), b"content")
    assert calls == ["fsync", "rename", "fsync"]  # content, name, and the folder that holds the name


def test_a_folder_that_goes_while_a_file_is_written_into_it_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, removed = Path.mkdir, []

    def make(folder: Path, *args: object, **kwargs: object) -> None:
        mkdir(folder, *args, **kwargs)  # type: ignore[arg-type]
        if folder.name == "new" and len(removed) < 3:
            folder.rmdir()  # as another process does that finds it empty
            removed.append(folder)

    monkeypatch.setattr(Path, "mkdir", make)
    write_bytes(str(tmp_path / "new" / "file"), b"content")
    assert (len(removed), (tmp_path / "new" / "file").read_bytes()) == (3, b"content")

    (tmp_path / "a-file").write_bytes(b"")
    with pytest.raises(FileExistsError):
        write_bytes(str(tmp_path / "a-file" / "file"), b"")


def test_the_group_may_read_what_is_written(tmp_path: Path) -> None:
    write_bytes(str(tmp_path / "file"), b"")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644


def test_an_object_store_gets_one_put(monkeypatch: pytest.MonkeyPatch) -> None:
    puts: list[str] = []
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "pipe_file", lambda self, path, data, **_: puts.append(path))
    write_bytes("memory://one-put/file", b"content")
    assert puts == ["/one-put/file"]


def test_local_urls_have_a_path_and_others_have_none(tmp_path: Path) -> None:
    assert local_path(str(tmp_path)) == tmp_path
    assert local_path(tmp_path.as_uri()) == tmp_path
    assert local_path("memory://bucket/key") is None


@pytest.mark.parametrize(
    ("url", "names", "joined"),
    [
        ("data", ("train", "76"), "data/train/76"),
        ("data/", ("train",), "data/train"),
        ("s3://bucket", ("key",), "s3://bucket/key"),
        ("/", ("tmp",), "/tmp"),
    ],
)
def test_joining(url: str, names: tuple[str, ...], joined: str) -> None:
    assert os.path.normpath(join(url, *names)).lstrip("/") == os.path.normpath(joined).lstrip("/")


def test_a_scheme_that_nothing_serves_is_a_user_error() -> None:
    with pytest.raises(UserError, match="cannot open nosuch://bucket/key"):
        read_bytes("nosuch://bucket/key")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, **_: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(connect, "url_to_fs", fail)
    with pytest.raises(UserError, match=r"pip install 'stackgan_dist\[s3\]'"):
        read_bytes("s3://bucket/key")
