"""Every option of every command: it is documented, every number has a range, and what is out of it is refused."""

from __future__ import annotations

import ast
import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import tyro

import stackgan_dist
from stackgan_dist.bench.__main__ import BENCHMARKS
from stackgan_dist.cli import doors
from stackgan_dist.cli.doors import COMMANDS, command_main
from stackgan_dist.cli.help_texts import field_docs
from stackgan_dist.errors import EXIT_USER_ERROR
from stackgan_dist.ranges import Field, Range, fields_of, ranges_of, type_hints

REQUIRED = {
    "pack": ["painted"],
    "pack verify": ["x"],
    "pack reshard": ["x", "--out", "y"],
    "generate": ["x", "a red bird"],
    "export": ["x"],
    "scores": ["x"],
    "scores --pictures": ["x", "--against", "y"],
    "inception_score": ["x"],
    "colour_agreement": ["x"],
    "figures": ["--run", "x"],
    "reproduce": ["table1", "--data", "x"],
    "human_rank build": ["--runs", "a", "b", "--out", "c"],
    "human_rank report": ["x"],
}
"""What a command cannot do without; the rest have defaults."""
SUBCOMMANDS = {
    "pack": ["pack", "pack verify", "pack reshard"],
    "scores": ["scores", "scores --pictures"],
    "runs": ["runs folder"],
    "human_rank": ["human_rank build", "human_rank serve", "human_rank report", "human_rank plan"],
    "bench": [f"bench {name}" for name in BENCHMARKS],
}
LINES = [line for command in COMMANDS for line in SUBCOMMANDS.get(command, [command])]


class _Parsed(Exception):  # noqa: N818
    """Carries what a command is about to parse."""


def _call(patch: pytest.MonkeyPatch, line: str, *arguments: str) -> Any:
    command, *sub = line.split()
    patch.setattr("sys.argv", [command, *sub, *REQUIRED.get(line, []), *arguments])
    command_main(command)()


def _options_of(patch: pytest.MonkeyPatch, line: str) -> Any:
    """The options class of a command, as it gives it to tyro."""

    def seen(options: Any, **_: Any) -> None:
        raise _Parsed(options)

    patch.setattr(tyro, "cli", seen)
    with pytest.raises(_Parsed) as parsed:
        _call(patch, line)
    (options,) = parsed.value.args
    for part in get_args(options):  # a union, with a name for each
        if get_args(part)[1].name == line.split()[-1]:
            return get_args(part)[0]
    return options


def _numbers(hint: Any) -> set[type]:
    """The types of numbers in an annotation."""
    if hint in (int, float):
        return {hint}
    return {found for part in get_args(hint) if not isinstance(part, Range) for found in _numbers(part)}


def _sections(options: Any) -> Iterator[Any]:
    """The class and the dataclasses inside it."""
    yield options
    for hint in type_hints(options).values():
        if dataclasses.is_dataclass(kind := getattr(hint, "__origin__", hint)):
            yield from _sections(kind)


@pytest.mark.parametrize("line", LINES)
def test_every_number_has_a_range_and_every_option_its_sentence(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = _options_of(monkeypatch, line)
    for field in fields_of(options):
        assert len(_numbers(field.hint)) == len(ranges_of(field.hint)), f"{field.flag} of {line}"
    for section in _sections(options):
        assert section.__doc__
        docs = field_docs(section)
        for field in fields_of(section):
            if "." not in field.path:
                assert re.fullmatch(r"\S+ .*\.", docs.get(field.path, "")), f"{field.flag} of {line}"


def test_no_command_reads_its_line_in_another_way() -> None:
    package = Path(stackgan_dist.__file__).parent
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) == "tyro.cli"
    }
    assert found == {"cli/doors.py"}


def _outside(field: Field) -> list[str]:
    """Values that the field must not take."""
    (limits,), (kind,) = ranges_of(field.hint), _numbers(field.hint)
    below = [limit - least for limit, least in ((limits.at_least, 1), (limits.above, 0)) if limit is not None]
    above = [limit + more for limit, more in ((limits.at_most, 1), (limits.below, 0)) if limit is not None]
    assert below, f"{field.flag} has no lower limit"
    return [str(kind(value)) for value in below + above] + ["nan", "inf", "-inf"] + ([str(2**63)] * (kind is int))


Refusal = Callable[..., str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refusal:
    """Call a command that must not get beyond its options; its only message."""
    monkeypatch.chdir(tmp_path)
    check = doors.check_fields

    def checked(options: Any) -> None:
        check(options)
        raise AssertionError(f"accepted: {options}")

    monkeypatch.setattr(doors, "check_fields", checked)
    monkeypatch.setenv("COLUMNS", "200")

    def door(line: str, *arguments: str) -> str:
        with pytest.raises(SystemExit) as end:
            _call(monkeypatch, line, *arguments)
        said = capsys.readouterr()
        assert end.value.code == EXIT_USER_ERROR, said
        message = said.out + said.err
        assert "Traceback" not in message
        assert len(re.findall(r"^error: |Error parsing --", message, re.MULTILINE)) == 1, message
        return message

    return door


@pytest.mark.parametrize("line", [line for line in LINES if line != "runs folder"])  # has the options of train
def test_what_is_out_of_its_range_is_refused_by_its_flag(
    line: str, monkeypatch: pytest.MonkeyPatch, refusal: Refusal
) -> None:
    with monkeypatch.context() as patch:
        options = _options_of(patch, line)
    for field in fields_of(options):
        for value in _outside(field) if _numbers(field.hint) else []:
            message = refusal(line, field.flag, value)
            ours = rf"error: {field.flag} (is|holds) \S+, (it|each) must be "
            assert re.search(rf"^{ours}|Error parsing {field.flag}: ", message), message


def test_texts_must_not_be_empty(refusal: Refusal) -> None:
    assert refusal("train", "--run.name", "").startswith("error: --run.name is '', it must be a text that is not empty")
    assert refusal("scores", "--data", "").startswith("error: --data is '', it must be a text that is not empty")


def test_other_ranks_keep_quiet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    for arguments in (["--samples", "0"], ["--samples", "x"], ["--nosuch"]):
        with pytest.raises(SystemExit) as end:
            _call(monkeypatch, "scores", *arguments)
        assert end.value.code == EXIT_USER_ERROR
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("line", LINES)
def test_help_tells_the_ranges(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with monkeypatch.context() as patch:
        options = _options_of(patch, line)
    monkeypatch.setenv("COLUMNS", "100")
    command, *sub = line.split()
    monkeypatch.setattr("sys.argv", [command, *sub, "--help-all"])
    with pytest.raises(SystemExit) as end:
        command_main(command)()
    assert end.value.code == 0
    shown = capsys.readouterr().out
    words = " ".join(shown.replace("│", " ").split())
    for field in fields_of(options):
        if ranges := ranges_of(field.hint):
            assert re.search(rf"{field.flag} .*?[(;] ?{re.escape(str(ranges[0]))}\)", words), field.flag


def test_help_is_the_same_for_a_module_that_is_run_as_a_script() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "stackgan_dist.schedule", "--help-all"], capture_output=True, text=True, check=True
    ).stdout
    assert "The number of machines. (default: 128; at least 1)" in " ".join(shown.replace("│", " ").split())
