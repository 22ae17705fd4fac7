"""Folders that calls write to: each has its own, on a disk and on an object store, also when many begin at once."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.interruption import Interrupted
from stackgan_dist.storage import output_folder as module
from stackgan_dist.storage.files import on_this_disk
from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.output_folder import check_whole, claim_among, output_folder


@pytest.fixture(params=["path", "memory"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Folder]:
    if request.param == "path":
        yield Folder.at(tmp_path)
    else:
        yield Folder.at(f"memory://{tmp_path.name}")
        fsspec.filesystem("memory").store.clear()


def _write(parent: Folder, title: str, *names: str) -> str:
    with output_folder(None, parent, title, lambda name: False, overwrite=False) as folder:
        for name in names:
            folder.write(name, title.encode())
    return folder.url.rpartition("/")[2]


def test_folders_are_numbered_and_say_what_is_in_them(root: Folder) -> None:
    parent = root / "generated"
    assert _write(parent, "A small, RED bird!", "a.png") == "0001-a-small-red-bird"
    assert _write(parent, "../../etc/passwd", "a.png") == "0002-etc-passwd"
    assert _write(parent, "红色的鸟", "a.png") == "0003"
    assert _write(parent, "a bird " * 20, "a.png") == "0004-a-bird-a-bird-a-bird-a-bird-a-bird-a"
    assert _write(parent, "x" * 99, "a.png") == "0005-" + "x" * 40
    parent.write("0900-of-somebody/a.png", b"")
    assert _write(parent, "a bird", "a.png") == "0901-a-bird"
    assert (parent / "0001-a-small-red-bird").names() == ["a.png"]


def test_a_call_that_wrote_nothing_leaves_nothing(root: Folder) -> None:
    _write(root / "generated", "a bird")
    assert (root / "generated").names() == []


def test_calls_at_once_have_different_folders(root: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.05)
    begin = threading.Barrier(6)
    folders: list[str] = []

    def call() -> None:
        begin.wait()
        folders.append(_write(root / "generated", "a bird", "a.png"))

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(folders)) == 6
    assert (root / "generated").names() == sorted(folders)


def test_calls_that_all_give_way_leave_no_folder_behind(root: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE_S", 0.0)
    parent = root / "generated"
    claim = module._claim
    others: list[str] = []

    def claim_after_another(folder: Folder, call: str) -> str:
        if not others:
            others.append(claim(folder, call))
        return claim(folder, call)

    def other_gives_way(_: float) -> None:
        module._leave(parent / "0001-a-bird", others[0])

    monkeypatch.setattr(module, "_claim", claim_after_another)
    monkeypatch.setattr(module.time, "sleep", other_gives_way)
    assert _write(parent, "a bird", "a.png") == "0001-a-bird"
    assert parent.names() == ["0001-a-bird"]


def test_a_folder_that_is_given_must_be_empty_or_its_files_replaced(root: Folder) -> None:
    out = root / "out"

    def call(name: str, *, overwrite: bool) -> None:
        with output_folder(out, root, "", lambda name: name.endswith(".png"), overwrite=overwrite) as folder:
            assert folder == out
            folder.write(name, name.encode())

    call("1.png", overwrite=False)
    out.write("notes.txt", b"mine")
    out.write(f"{module._CLAIM}0", b"")  # of a call that was killed
    with pytest.raises(UserError, match=r"holds 3 files already .*--overwrite"):
        call("2.png", overwrite=False)
    assert out.read("1.png") == b"1.png"
    call("2.png", overwrite=True)
    assert out.names() == ["2.png", "notes.txt"]


def test_a_second_call_is_refused_while_the_first_one_writes(root: Folder) -> None:
    out = root / "out"
    with output_folder(out, root, "", lambda name: False, overwrite=False):
        with (
            pytest.raises(UserError, match="holds 1 files already"),
            output_folder(out, root, "", lambda name: False, overwrite=False),
        ):
            pass
        assert len(out.names()) == 1  # the claim of the first


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(UserError, match=r"cannot write to .*give another folder with --out"),
        output_folder(
            Folder.at(tmp_path / "file" / "out"), Folder.at(tmp_path), "", lambda name: False, overwrite=False
        ),
    ):
        pass


def test_a_write_that_fails_inside(root: Folder) -> None:
    with (
        pytest.raises(UserError, match=r"cannot write to .*out: No space left on device; give another folder"),
        output_folder(root / "out", root, "", lambda name: False, overwrite=False),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert (root / "out").names() == []


def _stop_after(out: Folder | None, parent: Folder, *names: str, overwrite: bool = False) -> None:
    """A call that SIGTERM ends when it has written these."""

    def call() -> None:
        with output_folder(out, parent, "a bird", lambda name: name.endswith(".png"), overwrite=overwrite) as folder:
            for name in names:
                folder.write(name, b"")
            raise Interrupted(signal.SIGTERM)

    with pytest.raises(Interrupted):
        call()


def test_what_a_stopped_call_wrote_is_a_part_and_says_so(root: Folder) -> None:
    parent = root / "generated"
    _stop_after(None, parent, "0.png", "1.png")
    folder = parent / "0001-a-bird"
    claim = claim_among(folder.names())
    assert claim is not None
    assert folder.names() == [claim, "0.png", "1.png"]
    with pytest.raises(UserError, match=rf"{claim}.*may be a part of them.*--overwrite, or remove that file"):
        check_whole(folder, folder.names())
    with pytest.raises(UserError, match=rf"generated/{claim}"):
        check_whole(root, [f"generated/{claim}"])
    with pytest.raises(UserError, match=r"holds 3 files already \(1.png is one\), of a call that did not finish"):
        _stop_after(folder, parent)
    with output_folder(folder, parent, "", lambda name: name.endswith(".png"), overwrite=True) as taken:
        taken.write("0.png", b"")
    assert folder.names() == ["0.png"]
    check_whole(folder, folder.names())
    assert _write(parent, "a bird", "a.png") == "0002-a-bird"


def test_a_stopped_call_that_wrote_nothing_leaves_nothing(root: Folder) -> None:
    _stop_after(None, root / "generated")
    assert (root / "generated").names() == []
    (root / "out").write("notes.txt", b"mine")
    _stop_after(root / "out", root, overwrite=True)
    assert (root / "out").names() == ["notes.txt"]


def test_a_call_that_is_killed_while_it_replaces_leaves_its_claim(
    root: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = root / "out"
    for name in (f"{module._CLAIM}0", "0.png", "1.png"):
        out.write(name, b"")
    remove = Folder.remove

    def killed_at_the_second(folder: Folder, name: str) -> None:
        if name == "1.png":
            raise Interrupted(signal.SIGTERM)
        remove(folder, name)

    monkeypatch.setattr(Folder, "remove", killed_at_the_second)
    _stop_after(out, root, overwrite=True)
    assert claim_among(out.names()) is not None
    assert "1.png" in out.names()


def test_what_must_be_on_a_disk(tmp_path: Path) -> None:
    assert on_this_disk("a/b", "--out", "why") == Path("a/b")
    assert on_this_disk(f"file://{tmp_path}/x", "--out", "why") == tmp_path / "x"
    for url in ("s3://bucket/x", "nothing-serves-it://x"):
        with pytest.raises(
            UserError, match=f"--out is {url}, which is not on a disk of this machine; why: give a path"
        ):
            on_this_disk(url, "--out", "why")
