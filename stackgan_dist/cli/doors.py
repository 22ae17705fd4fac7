"""What every command has in common: its options, and how it ends.

A message says what was found, what was needed and what to change. Nobody needs a traceback for that.
"""

from __future__ import annotations

import errno
import functools
import importlib
import io
import itertools
import json
import os
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TextIO, TypeVar, get_args

from stackgan_dist.cli.short_help import short_help
from stackgan_dist.distributed.departure import end_process, is_broken
from stackgan_dist.distributed.environment import is_main_rank, ranks_from_environment
from stackgan_dist.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, RankError, UserError
from stackgan_dist.interruption import Interrupted, interruptible
from stackgan_dist.machine import check_open_files, raise_open_files_limit
from stackgan_dist.near_names import did_you_mean
from stackgan_dist.ranges import check_fields

T = TypeVar("T")

_EXIT_UNREAD = 128 + signal.SIGPIPE
"""Of a command whose reader has gone, as shells have it."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG, errno.EIO, errno.ESTALE)
"""Faults of a disk or of its permissions, not of this program."""

_ELSEWHERE = {
    "--ranks": "it stands before the command, as in `stackgan --ranks {1} {0} ...`; for torchrun it is "
    "--nproc-per-node",
    "--device": "CUDA is used where torch finds it, and the variable CUDA_VISIBLE_DEVICES chooses the GPUs, as in "
    "`CUDA_VISIBLE_DEVICES=0 stackgan {0} ...`; where it is empty, the CPU computes",
}
"""Flags that people give to commands without them -> what to do instead, of the command and their value."""

COMMANDS = {
    "pack": "pictures and captions into shards, in a folder or on an object store; verify and reshard them",
    "train": "train Stage-I or Stage-II, or one of the paper's baselines",
    "generate": "pictures of sentences",
    "export": "a trained generator alone: a folder for a hub, ONNX, or safetensors",
    "scores": "Inception Score, Frechet and kernel distance, R-precision of a run",
    "inception_score": "the Inception Score alone",
    "colour_agreement": "whether painted birds have the colours of their captions",
    "train_classifier": "a classifier for the scores, of a data set's own classes",
    "train_text_encoder": "the paper's text encoder, from a data set's captions and pictures",
    "figures": "the paper's figures, of a run",
    "reproduce": "the paper's tables, trained and scored cell by cell",
    "human_rank": "people rank methods, or try sentences, in a browser",
    "schedule": "what every node of a cluster will read, and when",
    "runs": "how a run ended, and where a configuration would write, for scripts",
    "bench": "how fast it is here",
}
"""Every command with what it does, in the order in which they are used. Each is a module of the package, or a package
with a __main__."""


def command_main(name: str) -> Callable[[], None]:
    """The `main` of a command, which is imported only now: most commands need torch, and a list of them does not."""
    module = importlib.import_module(f"stackgan_dist.{name}")
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"stackgan_dist.{name}.__main__")
    main: Callable[[], None] = module.main
    return main


def parse_options(
    options: type[T],
    command: str,
    description: str | None,
    *,
    arguments: Sequence[str] | None = None,
    default: T | None = None,
    run_first: bool = False,
) -> T:
    """The command line of `python -m stackgan_dist.COMMAND` (`arguments`: another one), with every field checked.

    `options` is a dataclass, or a union of one for each subcommand; `default` an instance whose values the flags
    change. With `run_first` the class has a positional `run`, which may be given as `--run RUN` too. (torchrun under
    Python 3.11 stops at `--run`, even behind the module's name, because it might abbreviate one of its own flags.)

    --help ends the process with the command's short help, --help-all with all of its options.

    Raises UserError for a value out of its range. What is no flag at all ends the process, with a message of rank 0.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    name, _, sub = command.partition(" ")
    subcommands = _subcommands(options)
    if subcommands and not given:
        given = ["--help"]
    if (shown := short_help(name, [*sub.split(), *given])) is not None:
        if is_main_rank():
            print(shown)
        sys.exit(0)

    if subcommands and not given[0].startswith("-") and given[0] not in subcommands:
        raise UserError(
            f"{name} has no {given[0]!r}.{did_you_mean(given[0], subcommands)} It has {', '.join(subcommands)}"
        )

    import tyro  # only here: the list of commands is shown without it

    from stackgan_dist.cli.help_texts import REGISTRY, wrapped

    given = ["--help" if word == "--help-all" else word for word in given]
    if run_first:
        given = run_in_front(given)
    with _mistakes_told(f"{command} {given[0]}" if given[:1] and given[0] in subcommands else command, given):
        parsed: T = tyro.cli(
            options,
            args=given,
            prog=f"python -m stackgan_dist.{command}",
            description=wrapped(description or ""),
            default=tyro.MISSING_NONPROP if default is None else default,
            console_outputs=is_main_rank(),
            registry=REGISTRY,
        )
    check_fields(parsed)
    return parsed


def _subcommands(options: object) -> list[str]:
    """The names in a union of options, one for each subcommand; none where it is a class."""
    marks = [mark for part in get_args(options) for mark in getattr(part, "__metadata__", ())]
    return [mark.name for mark in marks if hasattr(mark, "prefix_name")]


@contextmanager
def _mistakes_told(command: str, given: Sequence[str]) -> Iterator[None]:
    """What tyro says of mistakes in `given`, with a last line of ours in place of its own; rank 0 alone says it."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            yield
    except SystemExit as end:
        if end.code and is_main_rank():
            box = said.getvalue()
            unknown = box.partition("Unrecognized options:")[2].partition("Perhaps you meant")[0]
            for flag, advice in _ELSEWHERE.items():
                if re.search(rf"{flag}(?![\w-])", unknown):
                    value = next((word for at, word in itertools.pairwise(given) if at == flag), "2")
                    raise UserError(f"{command} has no {flag}: {advice.format(command, value)}") from None
            print(_without_footer(box), file=sys.stderr)
            print(f"every option, with its default and range: stackgan {command} --help-all", file=sys.stderr)
        raise
    if is_main_rank():
        sys.stderr.write(said.getvalue())


def _without_footer(box: str) -> str:
    """tyro's box without its last lines, which name --help: that is the short help here."""
    lines = box.rstrip().splitlines()
    footer = next((number for number, line in enumerate(lines) if "For full helptext" in line), None)
    if footer is not None:
        lines[footer - 1 :] = [line for line in lines[footer:] if "╰" in line]  # its lower edge, where it has one
    return "\n".join(lines)


def run_in_front(arguments: list[str]) -> list[str]:
    """`arguments` with what --run names as the first of them, where it is given so."""
    for number, word in enumerate(arguments):
        if word == "--run" and arguments[number + 1 :]:
            return [arguments[number + 1], *arguments[:number], *arguments[number + 2 :]]
        if word.startswith("--run="):
            return [word.removeprefix("--run="), *arguments[:number], *arguments[number + 1 :]]
    return arguments


def front_door(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command's `main`: a UserError ends it with one message from rank 0 and exit code 2.

    Under torchrun the message also goes into the agent's error file, so that it stands in the summary which
    torchrun prints last. Output that nobody reads any more (`... | head`) ends it silently. Ctrl-C, SIGTERM and SIGHUP
    end it in order with 128 + their number, unless the command itself makes something else of them.
    """

    @functools.wraps(main)
    def guarded() -> None:
        try:
            try:
                with interruptible():
                    explained()
            finally:
                sys.stdout.flush()  # what is left to the interpreter's end ends in a message of its own
        except BrokenPipeError:
            if not _is_unread(sys.stdout):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the interpreter's end
            sys.exit(_EXIT_UNREAD)

    def explained() -> None:
        raise_open_files_limit()
        try:
            try:
                main()
            except OSError as error:
                check_open_files(error)
                if error.errno in _NO_ACCESS:
                    what = f"{error.filename} cannot be used" if error.filename else "a file cannot be used"
                    raise RankError(
                        f"{what} ({error.strerror}); mend that, or give another folder, then start the same command "
                        "again: it goes on where it can"
                    ) from error
                if error.errno not in _DISK_FULL:
                    raise
                where = f" for {error.filename}" if error.filename else ""
                raise RankError(
                    f"no space left{where} ({error.strerror}); free some, then start the same command again: it goes "
                    "on where it can"
                ) from error
        except UserError as error:
            rank = ranks_from_environment().rank
            if isinstance(error, RankError):
                print(f"error on rank {rank}: {error}", file=sys.stderr, flush=True)
            elif rank == 0:
                print(f"error: {error}", file=sys.stderr, flush=True)
            _report_to_torchrun(error)
            end_process(EXIT_USER_ERROR)
        except (Interrupted, KeyboardInterrupt) as end:
            number = end.number if isinstance(end, Interrupted) else signal.SIGINT
            if is_main_rank():
                print(
                    f"stopped by {signal.Signals(number).name}; started again, the same command goes on where it can",
                    file=sys.stderr,
                    flush=True,
                )
            end_process(128 + number)
        except Exception:
            if is_broken():
                traceback.print_exc()
                end_process(1)
            raise

    return guarded


def end_preempted() -> None:
    """End a training that was stopped with a checkpoint: with 75, that whoever watches it starts it again.

    Where torchrun itself starts again what ends otherwise than with 0 (--max-restarts), the ranks end with 0: they were
    asked to stop. stackgan_dist.launcher, which looks at the run's marker, still ends with 75.
    """
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")) == 0:
        sys.exit(EXIT_PREEMPTED)


def _is_unread(stream: TextIO) -> bool:
    """Whether it is a pipe whose reader has gone; pipes and sockets to elsewhere break, too."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError):  # it is closed, or no file
        return False


def _report_to_torchrun(error: UserError) -> None:
    # Not by torch's ErrorHandler: it would add the traceback that nobody needs.
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": {"message": str(error), "extraInfo": {"timestamp": str(int(time.time()))}}}
        Path(path).write_text(json.dumps(content), encoding="utf-8")
