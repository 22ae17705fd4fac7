"""What is left to do for a table, in order, and doing it."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from stackgan_dist.errors import EXIT_PREEMPTED, UserError
from stackgan_dist.reproduce.commands import Command

_FORWARDED = (signal.SIGTERM, signal.SIGUSR1)


@dataclass(frozen=True)
class Job:
    """A cell, or the classifier: what is to be done for it, of what must be done before."""

    name: str
    """`SEED/CELL`, or `classifier`."""
    needs: tuple[str, ...]
    state: str
    commands: tuple[Command, ...]
    """What is left; none: it is finished."""


def as_script(jobs: Iterable[Job]) -> str:
    """The jobs as a shell script, which slurm/reproduce.sh reads too."""
    lines = []
    for job in jobs:
        after = f" after {' '.join(job.needs)}" if job.needs else ""
        lines.append(f"# job {job.name}{after}: {job.state}")
        lines += [f"python -m {shlex.join(command.words)}" for command in job.commands]
    return "\n".join(lines)


def run(command: Command, ranks: int) -> None:
    """Run a command on so many ranks of this machine.

    SIGTERM and SIGUSR1 are passed on, so that a training saves before it ends. Raises UserError when it fails.
    """
    launcher = [sys.executable, "-m"]
    if ranks > 1:
        launcher += ["stackgan_dist.launcher", "--standalone", "--nproc-per-node", str(ranks), "-m"]
    received: list[int] = []
    process = subprocess.Popen([*launcher, *command.words])

    def forward(number: int, _: FrameType | None) -> None:
        received.append(number)
        with suppress(ProcessLookupError):
            process.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        code = process.wait()
    except KeyboardInterrupt:  # the terminal has sent it to the child, too
        process.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received or code == EXIT_PREEMPTED:
        by = f" by {signal.Signals(received[0]).name}" if received else ""
        raise UserError(f"stopped{by}; start again, it goes on")
    if code:
        raise UserError(
            f"python -m {shlex.join(command.words)}\nfailed (exit code {code}); what went wrong is above. Started "
            "again, finished cells stay and this one goes on"
        )


def check_alone() -> None:
    """UserError under torchrun: the ranks are started here."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("this command starts its ranks itself: call it with python -m, and --nproc N for N ranks")
