"""Parts of a user's own are found by name, or refused with what is wrong; foreign files cause no import."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.importable import ALLOW, check_allowed, is_importable, make_part, options_of, source_digest

PARTS = """
class Good:
    size = 3
    def __init__(self, root, depth=1):
        self.root, self.depth = root, depth
    def work(self):
        pass

class NoWork:
    size = 3

class NoSize:
    def __init__(self, root): pass
    def work(self): pass

class Broken:
    size = 3
    def __init__(self, root):
        raise ValueError("no such root")
    def work(self): pass

function = print
"""


class Worker(Protocol):
    size: int

    def work(self) -> None: ...


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the working folder, another one for every test."""
    name = f"own_parts_{abs(hash(request.node.name))}"
    (tmp_path / f"{name}.py").write_text(PARTS)
    (tmp_path / f"{name}_failing.py").write_text("import json\nraise RuntimeError('not today')\n")
    (tmp_path / f"{name}_needy.py").write_text("import there_is_no_such_module\n")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_part_of_the_working_folder_is_made_with_its_options(parts: str, tmp_path: Path) -> None:
    part = make_part(f"{parts}:Good", Worker, "--part", "ROOT", depth=2)
    assert (part.root, part.depth) == ("ROOT", 2)
    before = source_digest(f"{parts}:Good")
    (tmp_path / f"{parts}.py").write_text(PARTS + "\n# changed\n")
    assert len(before) == 16
    assert source_digest(f"{parts}:Good") != before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("there_is_none:Part", "there is no module there_is_none; install it"),
        ("stackgan_dist.there_is_none:Part", "there is no module stackgan_dist.there_is_none; install it"),
        ("{}:Goood", "has no Goood. Did you mean Good?"),
        ("{}:function", "is of type builtin_function_or_method; it must be a class"),
        ("{}:NoWork", "lacks work; a class of Worker has work, size"),
        ("{}:NoSize", "lacks size; a class of Worker has work, size"),
        ("{}:Broken", "could not be made: ValueError: no such root ("),
        ("{}_failing:Part", "importing {}_failing failed: RuntimeError: not today ("),
        ("{}_needy:Part", "needs a module that is not there: No module named 'there_is_no_such_module'"),
    ],
)
def test_what_is_no_such_part_is_refused(parts: str, name: str, message: str) -> None:
    with pytest.raises(UserError) as error:
        make_part(name.format(parts), Worker, "--part", "ROOT")
    assert str(error.value).startswith(f"--part {name.format(parts)}")
    assert message.format(*[parts] * 3) in str(error.value)


def test_options_that_it_does_not_take_are_named(parts: str) -> None:
    with pytest.raises(UserError, match=r"unexpected keyword argument 'width'; it is Good\(root, depth=1\)"):
        make_part(f"{parts}:Good", Worker, "--part", "ROOT", width=2)


def test_nothing_is_called_that_lacks_the_methods() -> None:
    """A file may name anything: subprocess:Popen is a class, too, and its options a command."""
    with pytest.raises(UserError, match="lacks work"):
        make_part("subprocess:Popen", Worker, "the family", args=["touch", "here"])


@pytest.mark.parametrize("name", ["a:B", "my_package.families:My", "__main__:F"])
def test_importable_names(name: str) -> None:
    assert is_importable(name)


@pytest.mark.parametrize("name", ["stackgan", "a.b", "s3://bucket/x", "a:b:c", "a-b:C", "a:", ":B", "a/b:C", "1a:B"])
def test_other_names(name: str) -> None:
    assert not is_importable(name)


@pytest.mark.parametrize("allowed", ["own:Part", "own", "other, own:Part"])
def test_what_a_file_names_can_be_allowed(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.setenv(ALLOW, allowed)
    check_allowed("own:Part", "the checkpoint X")


@pytest.mark.parametrize("allowed", ["", "own:Other", "ow", "own:Par"])
def test_what_a_file_names_is_not_imported_unasked(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    monkeypatch.setenv(ALLOW, allowed)
    with pytest.raises(UserError, match=r"the checkpoint X names own:Part.*STACKGAN_ALLOW=own:Part"):
        check_allowed("own:Part", "the checkpoint X")


def test_options_are_toml_or_text() -> None:
    assert options_of(["a=1", "b=0.5", "c=true", 'd="x"', "e=some text", "f=[1, 2]"], "--options") == {
        "a": 1, "b": 0.5, "c": True, "d": "x", "e": "some text", "f": [1, 2],
    }  # fmt: skip
    with pytest.raises(UserError, match="--options: 'depth' is not KEY=VALUE"):
        options_of(["depth"], "--options")
