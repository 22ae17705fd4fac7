"""The help that comes first: at once, with examples that the commands understand; and names that are nearly right."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from test_docs import SUBCOMMANDS, flags_among, known_flags

from stackgan_dist import __main__ as stackgan
from stackgan_dist.bench.__main__ import BENCHMARKS
from stackgan_dist.cli import doors
from stackgan_dist.cli.doors import COMMANDS, command_main
from stackgan_dist.cli.short_help import HELP, short_help
from stackgan_dist.errors import EXIT_USER_ERROR, UserError
from stackgan_dist.near_names import did_you_mean
from stackgan_dist.pack.recipe import load_recipe
from stackgan_dist.presets import PRESETS, preset

EXAMPLES = [(name, example) for name, about in HELP.items() for example in about.examples]


def _stackgan(patch: pytest.MonkeyPatch, *arguments: str) -> int:
    patch.setattr(sys, "argv", ["stackgan", *arguments])
    try:
        stackgan.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_every_command_has_one() -> None:
    subs = {f"{name} {sub}" for name in ("pack", "human_rank") for sub in SUBCOMMANDS[name]}
    assert {*HELP} == {*COMMANDS} | subs


def test_every_benchmark_is_named() -> None:
    about = HELP["bench"]
    assert about.usage.partition(" ")[0].split("|") == [*BENCHMARKS]
    assert {*BENCHMARKS} <= {*re.findall(r"\w+", about.needed[0])}


@pytest.mark.parametrize(("name", "example"), EXAMPLES, ids=lambda value: value if " " in value else None)
def test_examples_are_understood(name: str, example: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed by the command itself, up to where it would begin."""
    program, *words = shlex.split(example)
    if words[0] == "--ranks":
        words = words[2:]
    assert program == "stackgan"
    assert " ".join(words).startswith(name)
    if words[0] in ("runs", "bench"):  # their options are those of train and of the benchmarks
        assert flags_among(words) <= known_flags("train" if words[0] == "runs" else "bench", *words[1:2])
        return

    class _Parsed(Exception):  # noqa: N818
        pass

    def parsed(options: Any) -> None:
        raise _Parsed

    monkeypatch.setattr(doors, "check_fields", parsed)
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(_Parsed):
        command_main(words[0])()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--count", "2", "--help"]])
def test_it_is_shown_by_stackgan_and_by_the_module(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _stackgan(monkeypatch, "generate", *words) == 0
    first = capsys.readouterr().out
    assert first.startswith("usage: stackgan generate RUN SENTENCE")
    assert "examples:\n  stackgan generate runs/demo" in first
    assert "required:\n  RUN: a run's folder" in first
    assert first.endswith("every option, with its default and range: stackgan generate --help-all\n")
    assert "--seed-of" not in first
    monkeypatch.setattr(sys, "argv", ["generate", *words])
    with pytest.raises(SystemExit) as end:
        command_main("generate")()
    assert end.value.code == 0
    assert capsys.readouterr().out == first
    assert _stackgan(monkeypatch, "help", "generate") == 0
    assert capsys.readouterr().out == first


def test_subcommands_have_their_own() -> None:
    for name in ("pack verify", "human_rank serve"):
        command, sub = name.split()
        shown = short_help(command, [sub, "--help"])
        assert shown is not None
        assert shown.startswith(f"usage: stackgan {name} ")
    assert short_help("pack", ["verify", "x"]) is None
    assert short_help("pack", ["--help-all"]) is None


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["trian"], "Did you mean train?"),
        (["human-rank", "serve"], "Did you mean human_rank?"),
        (["score", "runs/x"], "Did you mean scores?"),
        (["--rank", "2", "train"], "Did you mean --ranks?"),
        (["train", "--preset", "oxford_stage1"], "Did you mean oxford102-stage1?"),
        (["train", "--preset=Painted-Stage2"], "Did you mean painted-stage2?"),
        (["pack", "foldre"], "Did you mean folder?"),
        (["bench", "setp"], "Did you mean step?"),
        (["human_rank", "sevre"], "Did you mean serve?"),
        (["train", "--ranks", "4"], "`stackgan --ranks 4 train ...`"),
        (["scores", "runs/x", "--ranks=4"], "it stands before the command"),
        (["train", "--device", "cuda"], "CUDA_VISIBLE_DEVICES chooses the GPUs"),
        (["train", "--training.batch-sise", "8"], "--training.batch-size"),
        (["generate", "x", "a bird", "--sede", "8"], "--seed"),
    ],
)
def test_near_misses_are_told(
    arguments: list[str], meant: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _stackgan(monkeypatch, *arguments) == EXIT_USER_ERROR
    assert meant in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "--no-such-flag"], "train"),
        (["train", "--training.epochs", "x"], "train"),
        (["generate"], "generate"),
        (["pack", "verify"], "pack verify"),
        (["human_rank", "build", "--oot", "x"], "human_rank build"),
        (["bench", "scaling", "--rankz", "3"], "bench scaling"),
    ],
)
def test_mistakes_point_to_all_options(
    arguments: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _stackgan(monkeypatch, *arguments) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert said.endswith(f"\nevery option, with its default and range: stackgan {named} --help-all\n")
    assert not re.search(r"--help\b(?!-all)", said)


def test_subcommands_are_shown_where_none_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _stackgan(monkeypatch, "human_rank") == 0
    assert capsys.readouterr().out.startswith("usage: stackgan human_rank plan|build|serve|report")


def test_what_is_near_nothing_is_not_guessed_at() -> None:
    assert did_you_mean("xyz", PRESETS) == ""
    with pytest.raises(UserError, match=r"unknown preset 'xyz'\. Known presets"):
        preset("xyz")
    with pytest.raises(UserError, match=r"called 'xyz'; known: .* \.toml file\.$"):
        load_recipe("xyz")


RUN_COMMANDS = {"generate": ["a red bird"], "figures": [], "scores": [], "inception_score": [], "colour_agreement": []}


@pytest.mark.parametrize("command", RUN_COMMANDS)
def test_a_run_is_given_in_one_way_everywhere(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the command, behind its options, or as --run."""
    seen = []

    class _Parsed(Exception):  # noqa: N818
        pass

    def parsed(options: Any) -> None:
        seen.append(options)
        raise _Parsed

    monkeypatch.setattr(doors, "check_fields", parsed)
    words = RUN_COMMANDS[command]
    lines = [
        ["runs/x", *words, "--seed", "3"],
        ["--seed", "3", "runs/x", *words],
        ["--run", "runs/x", *words, "--seed", "3"],
    ]
    lines += [[*words, "--seed", "3", "--run=runs/x"], [*words, "--run", "runs/x", "--seed", "3"]]
    for line in lines:
        monkeypatch.setattr(sys, "argv", [command, *line])
        with pytest.raises(_Parsed):
            command_main(command)()
    assert len({repr(options) for options in seen}) == 1
    assert "run='runs/x'" in repr(seen[0])


def test_ranks_get_the_run_where_torchrun_lets_it_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun under Python 3.11 takes --run for an abbreviation of its own flags, also behind the module."""
    started: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, words: started.append(words[words.index("-m", 2) :]))
    monkeypatch.setattr(stackgan, "command_main", lambda _: lambda: None)
    for line in ("scores --samples 9 --run runs/x", "scores runs/x --samples 9", "train --run.name x"):
        assert _stackgan(monkeypatch, "--ranks", "2", *line.split()) == 0
    assert [words[1:] for words in started] == [
        ["stackgan_dist.scores", "runs/x", "--samples", "9"],
        ["stackgan_dist.scores", "runs/x", "--samples", "9"],
        ["stackgan_dist.train", "--run.name", "x"],
    ]


def test_a_run_of_runs_too(tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "DONE").write_text("step 7\n")
    for line in (
        ["ending", tmp_path, "DONE"],
        ["ending", "--run", tmp_path, "DONE"],
        ["ending", "DONE", "--run", tmp_path],
    ):
        assert _stackgan(monkeypatch, "runs", *map(str, line)) == 0
        assert capsys.readouterr().out == "step 7\n"


@pytest.mark.parametrize("line", [["RUN"], ["--run", "RUN"], ["STUDY", "--run", "RUN"], ["STUDY"], ["NOWHERE"]])
def test_serve_takes_a_run_where_a_study_stands(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = []
    monkeypatch.setattr("stackgan_dist.human_rank.web.serve.serve_pages", lambda *given, **_: served.append(given[:2]))
    for name, file in (("RUN/stage2", "config.json"), ("STUDY", "study.json")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / file).touch()
    monkeypatch.chdir(tmp_path)
    assert _stackgan(monkeypatch, "human_rank", "serve", *line) == 0
    study = next((Path(word) for word in line if word in ("STUDY", "NOWHERE")), None)
    assert served == [(study, "RUN" if "RUN" in line else None)]
