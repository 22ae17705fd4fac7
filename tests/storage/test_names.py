"""Names are taken literally: whatever characters one holds, and whatever it would match as a pattern."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from stores.faulty_network import FaultyNetwork

from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import Folder

PARTS = [
    *"*?[]{}!#%+&=:;,~$@^'\"\\|<>() .-_ab1Ä", "é", "日本", "**", "[1]", "[!a]", "[a-b]", "{a,b}", "%2F", "%41", "::",
    "..",
]  # fmt: skip
NAMES = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6).map("".join).filter(lambda name: name.strip(".") != "")
NEAR: list[Callable[[str], str]] = [
    # What the name would mean as a pattern,
    lambda name: name.replace("**", "ab").replace("*", "a").replace("?", "b"),
    lambda name: name.replace("[1]", "1").replace("[!a]", "b").replace("[a-b]", "a").replace("{a,b}", "b"),
    lambda name: name.replace("*", "").replace("[", "").replace("]", ""),
    # what it begins, what begins it,
    lambda name: f"{name}a",
    lambda name: name[:-1],
    # and how else it may be written.
    unquote,
    str.strip,
    str.swapcase,
    lambda name: name.partition("#")[0].partition("?")[0],
    lambda name: name.rpartition("::")[2],
]
FILES = {"DONE": b"done", "checkpoints/step-000000001/state.pt": b"state"}


@st.composite
def neighbourhoods(draw: st.DrawFn) -> tuple[str, str, str]:
    """A name and two others, which are near it where such names can be."""
    name = draw(NAMES)
    near = sorted({change(name) for change in NEAR} - {name, ""})
    near = [other for other in near if "/" not in other and other.strip(".")]
    others = st.one_of(st.sampled_from(near), NAMES) if near else NAMES
    first, second = draw(others), draw(others)
    assume(len({name, first, second}) == 3)
    return name, first, second


def _live(top: Folder, names: tuple[str, str, str]) -> None:
    """Write, overwrite, list and remove the first of three folders, then a file of its name; the others stay."""
    name, *others = names
    for each in names:
        for file, content in FILES.items():
            (top / each).write(file, content + each.encode())
    own = top / name
    own.write("DONE", b"again")
    own.append_line("scores.jsonl", "{}")
    assert own.read("DONE") == b"again"
    assert own.files_below() == sorted([*FILES, "scores.jsonl"])
    assert [below for below, _ in top.walk(1)] == ["", *sorted(names)]
    own.remove("checkpoints")
    assert own.names() == ["DONE", "scores.jsonl"]
    top.remove(name)
    assert not top.exists(name)
    assert own.names() == own.files_below() == []
    top.write(name, b"a file")
    assert top.read(name) == b"a file"
    assert top.sizes() == {name: 6}
    top.remove(name)
    assert top.names() == sorted(others)
    for other in others:
        assert (top / other).files_below() == sorted(FILES)
        for file, content in FILES.items():
            assert (top / other).read(file) == content + other.encode()
        top.remove(other)
    assert top.names() == []


@given(neighbourhoods())
@settings(max_examples=500, deadline=None)
def test_any_name_on_a_disk(names: tuple[str, str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # most of the time, and none of the matter
        _live(Folder.at(folder), names)


ON_STORES = neighbourhoods().filter(lambda names: "\\" not in "".join(names))


@given(ON_STORES)
@settings(max_examples=500, deadline=None)
def test_any_name_in_memory(names: tuple[str, str, str]) -> None:
    fsspec.filesystem("memory").store.clear()
    _live(Folder.at("memory://names/of/all kinds [1]"), names)


NUMBERS = itertools.count()


@given(ON_STORES)
@settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_on_a_real_store(network: FaultyNetwork, names: tuple[str, str, str]) -> None:
    _live(Folder.at(f"s3://bucket/names [{next(NUMBERS)}]"), names)


@pytest.mark.parametrize("name", ["..", "../exp1", "a/../b", ".", "./a", "/etc", "a//b", "", "a\0b"])
def test_a_name_that_leads_elsewhere_is_refused(anywhere: str, name: str) -> None:
    folder = Folder.at(anywhere)
    for use in (folder.read, folder.remove, folder.exists, folder.__truediv__):
        with pytest.raises(UserError):
            use(name)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "an empty name"),
        ("memory://bucket/a/../b", "a part '.' or '..'"),
        ("memory://bucket/a\\..\\b", "a backslash"),
        ("memory://bucket/a\nb", "control characters"),
        ("memory://bucket/\udc80", "not valid Unicode"),
        ("s3://bucket/run?versionId=7", "names a version"),
        ("simplecache::memory://bucket/a", "not chained by '::'"),
        ("memory://bucket::memory://other", "not chained by '::'"),
    ],
)
def test_a_url_that_a_store_would_read_otherwise_is_refused(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Folder.at(url)


def test_a_local_path_is_no_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a chain of file systems, not a home that would be expanded, not a scheme."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("memory::file", "~", "~root", "file:x", "s3:", "a%20b", "$HOME"):
        (Folder.at("runs") / name).write("file", name.encode())
        Folder.at("./~" if name == "~" else name).write("file", name.encode())
        assert (tmp_path / name / "file").read_bytes() == (tmp_path / "runs" / name / "file").read_bytes()
    assert not (tmp_path / "home").exists()


def test_slashes_at_the_end_mean_nothing(anywhere: str) -> None:
    Folder.at(f"{anywhere}//").write("file", b"1")
    (Folder.at(anywhere) / "run/").write("file", b"2")
    assert Folder.at(f"{anywhere}/run/").read("file") == b"2"
    assert Folder.at(anywhere).files_below() == ["file", "run/file"]
    assert Folder.at(f"{anywhere}/run/").url == f"{anywhere}/run"


def test_a_file_and_a_folder_of_one_name_go_together() -> None:
    """Which stores can hold, though neither the one in memory nor the server of the tests does."""

    class Flat(MemoryFileSystem):
        protocol = "flat"
        store: ClassVar[dict[str, Any]] = {}

        def pipe_file(self, path: str, value: bytes, **_: Any) -> None:
            self.store[path] = MemoryFile(self, path, value)

        def find(self, path: str, **_: Any) -> list[str]:
            return sorted(name for name in self.store if name.startswith(f"{path}/")) or [path]

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return path.removeprefix("flat://")

    fsspec.register_implementation("flat", Flat, clobber=True)
    top = Folder.at("flat://both")
    for name in ("run", "run/file", "run1", "run1/file"):
        top.write(name, b"")
    top.remove("run")
    assert sorted(Flat.store) == ["both/run1", "both/run1/file"]


def test_a_bucket_is_emptied_but_stays() -> None:
    fsspec.filesystem("memory").store.clear()
    bucket, other = Folder.at("memory://pk[1]"), Folder.at("memory://pk1")
    for each in (bucket, other):
        each.write("a/file", b"")
    bucket.files.remove(bucket.key)
    assert (bucket.names(), other.files_below()) == ([], ["a/file"])


def test_foreign_names_are_passed_over() -> None:
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    top = Folder.at("memory://foreign")
    top.write("a/file", b"")
    memory.pipe_file("/foreign/b\\c/file", b"")
    assert [below for below, _ in top.walk(2)] == ["", "a"]
    assert top.names() == ["a", "b\\c"]


def test_parents() -> None:
    for url, parent in [
        ("runs/demo/checkpoints", "runs/demo"),
        ("step-1", "."),
        (".", ".."),
        ("../x", ".."),
        ("/x", "/"),
        ("file:///runs/x", "file:///runs"),
        ("s3://bucket/runs/x", "s3://bucket/runs"),
        ("s3://bucket", "s3://bucket"),
    ]:
        assert Folder.at(url).parent.url == parent


def test_what_hardly_means_a_folder_of_that_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind `--flag=` no shell expands ~, and s3:/bucket would be a folder of this machine."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"~/runs was not expanded by the shell; write {tmp_path}/runs, or \./~/runs"):
        Folder.at("~/runs")
    with pytest.raises(UserError, match="not expanded"):
        Folder.at("~")
    assert Folder.at("./~/runs").path == Path("./~/runs")
    for url, meant in (("s3:/bucket/runs", "s3://bucket/runs"), ("file:/tmp/x", "file:///tmp/x"), ("gs:/b", "gs://b")):
        with pytest.raises(UserError, match=rf"{url} is no URL and hardly a path; write {meant}, or \./{url}"):
            Folder.at(url)
    for name in ("a:b/c", "./s3:/x", "C:", "exp:1"):
        assert Folder.at(name).path is not None
