"""Files of a remote run on their way."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from stackgan_dist.storage.folder import Folder
from stackgan_dist.storage.retry import StoreError
from stackgan_dist.storage.upload import Uploader

RUN = Folder.at("memory://upload/run")


def test_complete_files_are_moved_and_growing_ones_copied(tmp_path: Path) -> None:
    fsspec.filesystem("memory").store.clear()
    said: list[str] = []
    rows = tmp_path / "metrics.jsonl"
    uploader = Uploader(tmp_path, RUN, (rows,), said.append)
    (tmp_path / "samples").mkdir()
    for turn in range(3):
        (tmp_path / "samples" / f"{turn}.png").write_bytes(b"picture")
        with rows.open("a") as file:
            file.write(f"{turn}\n")
        uploader.start()
    uploader.wait()
    assert RUN.read("metrics.jsonl") == b"0\n1\n2\n"
    assert (RUN / "samples").names() == ["0.png", "1.png", "2.png"]
    assert [path.name for path in tmp_path.rglob("*.*")] == ["metrics.jsonl"]
    assert said == []


def test_what_did_not_arrive_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.filesystem("memory").store.clear()
    said: list[str] = []
    uploader = Uploader(tmp_path, RUN, (), said.append)
    (tmp_path / "events").write_bytes(b"events")

    def fail(folder: Folder, name: str, data: bytes) -> None:
        raise StoreError("cannot write")

    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", fail)
        uploader.start()
        uploader.wait()
    assert said == [f"events could not be copied to {RUN} yet: cannot write"]
    assert (tmp_path / "events").exists()
    uploader.start()
    uploader.wait()
    assert RUN.read("events") == b"events"
    assert not (tmp_path / "events").exists()


@pytest.mark.parametrize("times", [1, 9])
def test_a_growing_file_that_the_store_has_dropped_is_sent_again_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    fsspec.filesystem("memory").store.clear()
    said: list[str] = []
    rows = tmp_path / "metrics.jsonl"
    rows.write_text("0\n")
    uploader = Uploader(tmp_path, RUN, (rows,), said.append)
    write, dropped = Folder.write, []

    def drop(folder: Folder, name: str, data: bytes) -> None:
        if len(dropped) < times:
            dropped.append(name)
        else:
            write(folder, name, data)

    monkeypatch.setattr(Folder, "write", drop)
    uploader.finish()
    assert dropped == ["metrics.jsonl"] * min(times, 2)
    assert RUN.exists("metrics.jsonl") == (times == 1)
    assert said == ([] if times == 1 else [f"metrics.jsonl did not arrive whole at {RUN}"])
