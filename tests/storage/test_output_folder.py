"""Folders that calls write to: each has its own, on a disk and on an object store, also when many begin at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.storage import output_folder as module
from stackgan_dist.storage.files import join, list_names, read_bytes, write_bytes
from stackgan_dist.storage.output_folder import output_folder


@pytest.fixture(params=["path", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "path":
        yield str(tmp_path)
    else:
        yield f"memory://{tmp_path.name}"
        fsspec.filesystem("memory").store.clear()


def _write(root: str, title: str, *names: str) -> str:
    with output_folder(None, root, title, lambda name: False, overwrite=False) as folder:
        for name in names:
            write_bytes(join(folder, name), title.encode())
    return folder.rpartition("/")[2]


def test_folders_are_numbered_and_say_what_is_in_them(root: str) -> None:
    parent = join(root, "generated")
    assert _write(parent, "A small, RED bird!", "a.png") == "0001-a-small-red-bird"
    assert _write(parent, "../../etc/passwd", "a.png") == "0002-etc-passwd"
    assert _write(parent, "红色的鸟", "a.png") == "0003"
    assert _write(parent, "a bird " * 20, "a.png") == "0004-a-bird-a-bird-a-bird-a-bird-a-bird-a"
    assert _write(parent, "x" * 99, "a.png") == "0005-" + "x" * 40
    write_bytes(join(parent, "0900-of-somebody", "a.png"), b"")
    assert _write(parent, "a bird", "a.png") == "0901-a-bird"
    assert list_names(join(parent, "0001-a-small-red-bird")) == ["a.png"]


def test_a_call_that_wrote_nothing_leaves_nothing(root: str) -> None:
    _write(join(root, "generated"), "a bird")
    assert list_names(join(root, "generated")) == []


def test_calls_at_once_have_different_folders(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.05)
    begin = threading.Barrier(6)
    folders: list[str] = []

    def call() -> None:
        begin.wait()
        folders.append(_write(join(root, "generated"), "a bird", "a.png"))

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(folders)) == 6
    assert list_names(join(root, "generated")) == sorted(folders)


def test_a_folder_that_is_given_must_be_empty_or_its_files_replaced(root: str) -> None:
    out = join(root, "out")

    def call(name: str, *, overwrite: bool) -> None:
        with output_folder(out, root, "", lambda name: name.endswith(".png"), overwrite=overwrite) as folder:
            assert folder == out
            write_bytes(join(folder, name), name.encode())

    call("1.png", overwrite=False)
    write_bytes(join(out, "notes.txt"), b"mine")
    write_bytes(join(out, f"{module._CLAIM}0"), b"")  # of a call that was killed
    with pytest.raises(UserError, match=r"holds 3 files already .*--overwrite"):
        call("2.png", overwrite=False)
    assert read_bytes(join(out, "1.png")) == b"1.png"
    call("2.png", overwrite=True)
    assert list_names(out) == ["2.png", "notes.txt"]


def test_a_second_call_is_refused_while_the_first_one_writes(root: str) -> None:
    out = join(root, "out")
    with output_folder(out, root, "", lambda name: False, overwrite=False):
        with (
            pytest.raises(UserError, match="holds 1 files already"),
            output_folder(out, root, "", lambda name: False, overwrite=False),
        ):
            pass
        assert len(list_names(out)) == 1  # the claim of the first


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"cannot write to .*give another folder with --out"),
        output_folder(str(tmp_path / "file" / "out"), "", "", lambda name: False, overwrite=False),
    ):
        pass
