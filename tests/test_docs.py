"""The pages hold: links lead somewhere, commands exist, and their flags are known to them."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from stackgan_dist.cli.doors import COMMANDS, command_main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path for folder in (".", "docs", "benchmarks", "shards", "launch") for path in (ROOT / folder).glob("*.md")
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))

SUBCOMMANDS = {
    "pack": ("verify", "reshard"),
    "human_rank": ("build", "serve", "report", "plan"),
    "bench": ("step", "loader", "checkpoint", "score", "scaling"),
    "reproduce": ("table1", "table2", "terms"),
}
BEHIND_SCRIPTS = {
    "slurm/stage1.sh": "train",
    "slurm/stage2.sh": "train",
    "slurm/pack.sh": "pack",
    "slurm/scores.sh": "scores",
    "slurm/inception_score.sh": "inception_score",
    "slurm/reproduce.sh": "reproduce",
}
"""Scripts that hand their arguments on to a command."""
OF_OTHER_PROGRAMS = {
    "--ranks", "--version", "--help", "--help-all",  # stackgan itself, before the command
    "--nnodes", "--nproc-per-node", "--standalone", "--max-restarts",  # torchrun
    "--nodes", "--time", "--signal", "--array", "--gpus-per-node",  # sbatch
}  # fmt: skip


def code_of(page: Path) -> Iterator[str]:
    """The lines of a page's code blocks, continued lines as one, and its inline code."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    fenced = False
    for line in text.splitlines():
        if line.startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            yield line.strip()
        else:
            yield from re.findall(r"`([^`]+)`", line)


def calls_in(code: str) -> Iterator[tuple[str, list[str]]]:
    """Every stackgan command in a piece of code, with its arguments."""
    module, script = r"(?:-m|--module) stackgan_dist\.([a-z]\w*)", r"(?<!\S)stackgan(?: --ranks \S+)? ([a-z_]+)"
    for found in re.finditer(f"{module}|{script}", code):
        yield found[1] or found[2], _arguments(code[found.end() :])
    for script, command in BEHIND_SCRIPTS.items():
        if script in code:
            yield command, _arguments(code.partition(script)[2])


def _arguments(rest: str) -> list[str]:
    """The words up to a comment, or to the next command of the shell."""
    return re.split(r"(?:^|\s)(?:#|&|\||>|;)|;|\s-m\s", rest)[0].split()


def flags_among(words: list[str]) -> set[str]:
    return {found[0] for word in words if (found := re.match(r"--[a-z][\w.-]*", word.lstrip("[")))}


@cache
def known_flags(*command: str) -> frozenset[str]:
    """The flags in the help of a command, or of one of its subcommands."""
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setenv("COLUMNS", "200")
        patch.setattr("sys.argv", [*command, "--help-all"])
        with contextlib.suppress(SystemExit):
            command_main(command[0])()
    return frozenset(re.findall(r"--[a-z][\w.-]*", shown.getvalue()))


def all_flags() -> frozenset[str]:
    commands = [(name,) for name in COMMANDS] + [(name, sub) for name in SUBCOMMANDS for sub in SUBCOMMANDS[name]]
    commands.append(("scores", "--pictures"))
    return frozenset().union(*(known_flags(*command) for command in commands))


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{target} is not there"
        assert there.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(there), f"{target}: {there.name} has no such heading"


def anchors(page: Path) -> set[str]:
    """Those that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_readme_keeps_the_commands_that_people_know() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in (
        "bash launch/demo.sh",
        "bash tests/run.sh",
        "torchrun --nnodes 4 ",
        "sbatch slurm/stage2.sh",
        "tensorboard --logdir runs",
    ):
        assert command in text


@each_page
def test_commands_exist_and_know_their_flags(page: Path) -> None:
    for code in code_of(page):
        for name, arguments in calls_in(code):
            if name == "help":  # stackgan's own
                continue
            assert name in COMMANDS, f"`{code}`: there is no command {name}"
            sub = [word for word in arguments[:1] if word in SUBCOMMANDS.get(name, ())]
            sub += ["--pictures"] if name == "scores" and "--pictures" in arguments else []
            # `runs folder` takes the flags of train.
            known = known_flags("train") if name == "runs" else known_flags(name, *sub)
            unknown = flags_among(arguments) - known - {"--help", "--help-all"}
            assert not unknown, f"`{code}`: {' '.join([name, *sub])} knows no {', '.join(sorted(unknown))}"


@each_page
def test_scripts_exist(page: Path) -> None:
    for code in code_of(page):
        for script in re.findall(r"(?:bash|sbatch|python)(?: -\S+)* ((?:\w+/)+\w+\.(?:sh|py))", code):
            assert (ROOT / script).is_file(), f"`{code}`: there is no {script}"


@each_page
def test_flags_in_the_text_are_those_of_some_command(page: Path) -> None:
    for code in code_of(page):
        if code.startswith("-"):
            unknown = flags_among(code.split()) - all_flags() - OF_OTHER_PROGRAMS
            assert not unknown, f"`{code}`: no command knows {', '.join(sorted(unknown))}"


def test_the_checks_see_what_they_are_for() -> None:
    """Of a line with each kind of call, what is found in it."""
    line = "NNODES=4 bash launch/torchrun.sh -m stackgan_dist.train --preset x --a.b=1 # --no"
    assert list(calls_in(line)) == [("train", ["--preset", "x", "--a.b=1"])]
    assert list(calls_in("stackgan --ranks 2 pack verify data | head")) == [("pack", ["verify", "data"])]
    assert list(calls_in("sbatch --nodes=4 slurm/stage2.sh --preset x")) == [("train", ["--preset", "x"])]
    assert list(calls_in("pip install 'stackgan_dist[s3]'")) == []
    assert flags_among(["[--data", "--a.b=1", "x"]) == {"--data", "--a.b"}
    assert "--training.batch-size" in known_flags("train")
    assert "--training.batchsize" not in all_flags()
