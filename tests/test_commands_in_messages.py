"""Every command that a message of the package suggests is run by a test: here is which."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import stackgan_dist

PACKAGE = Path(stackgan_dist.__file__).parent
TESTS = Path(__file__).parent
MARK = "python -m stackgan_dist"

RUN_BY = {
    "data/index.py": "data/test_pack_command.py::test_an_index_alone_points_to_the_help",
    "data/pack_command.py": "data/test_pack_command.py::test_what_lies_beside_says_how",
    "generation/generate.py": "test_generate.py::test_it_generates_at_the_given_place",
    "human_rank/__main__.py": "human_rank/study/test_build.py::test_the_commands_that_it_suggests",
    "human_rank/study/folder.py": "human_rank/study/test_build.py::test_the_commands_that_it_suggests",
    "human_rank/web/picture_generator.py": "test_generate.py::test_it_generates_at_the_given_place",
    "reproduce/reproduction.py": "reproduce/test_reproduce.py::test_one_cell_needs_what_it_starts_from",
}
"""File of the package -> the test that runs what it suggests."""
NO_SUGGESTIONS = {"pack/__main__.py", "bench/report.py", "bench/__main__.py", "runs/__main__.py"}
"""Files whose commands are their own usage, or what was run."""


def _messages(path: Path) -> Iterator[str]:
    """The texts of a file that are neither docstrings nor the name of a program for its own --help."""
    tree = ast.parse(path.read_text())
    named = [
        word.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for word in node.keywords
        if word.arg == "prog"
    ]
    own = {id(part) for value in named for part in ast.walk(value)}
    own |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in own:
            yield node.value


def test_every_place_that_suggests_a_command_has_a_test_that_runs_it() -> None:
    places = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(MARK in message for message in _messages(path))
    }
    assert places - NO_SUGGESTIONS == {*RUN_BY}
    for test in RUN_BY.values():
        file, _, name = test.partition("::")
        assert f"def {name}(" in (TESTS / file).read_text(), test
