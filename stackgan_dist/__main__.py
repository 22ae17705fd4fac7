"""Train, measure and use text-to-image GANs: `stackgan COMMAND ...`, or `python -m stackgan_dist COMMAND ...`.

`stackgan --ranks 4 train ...` starts four ranks of a command on this machine with torchrun; on several machines start
them with launch/torchrun.sh or Slurm. Every command is a module as well: `torchrun ... -m stackgan_dist.train ...`.
"""

from __future__ import annotations

import os
import sys

from stackgan_dist import __version__
from stackgan_dist.cli.doors import COMMANDS, command_main, front_door, run_in_front
from stackgan_dist.cli.short_help import short_help
from stackgan_dist.errors import UserError
from stackgan_dist.near_names import did_you_mean

_OPTIONS = ("--help", "--version", "--ranks")
_OTHER_RUN = ("human_rank", "runs")
"""Commands that take --run where it stands."""
_USAGE = "usage: stackgan [-h] [--version] [--ranks N] COMMAND [OPTIONS]"


@front_door
def main() -> None:
    """Find the command and run it, on as many ranks as were asked for."""
    arguments = sys.argv[1:]
    ranks = None
    while arguments and arguments[0].startswith("-"):
        flag, _, value = arguments.pop(0).partition("=")
        if flag in ("-h", "--help", "--help-all"):
            _show_help()
            return
        if flag == "--version":
            print(__version__)
            return
        if flag != "--ranks":
            raise UserError(
                f"{flag} stands before the command and is no option of stackgan itself."
                f"{did_you_mean(flag, _OPTIONS)} {_USAGE}"
            )
        ranks = value or (arguments.pop(0) if arguments else "")
        if not ranks.isdecimal() or int(ranks) < 1:
            raise UserError(f"--ranks is {ranks!r}, it must be a number of processes from 1 on, as in --ranks 2")
    if arguments[:1] == ["help"]:  # `stackgan help train` is `stackgan train --help`
        arguments = [*arguments[1:], "--help"] if arguments[1:] else []
    if not arguments:
        _show_help()
        return
    name, *rest = arguments
    if name not in COMMANDS:
        raise UserError(
            f"there is no command {name!r}.{did_you_mean(name, COMMANDS)} The commands are {', '.join(COMMANDS)}"
        )
    if (shown := short_help(name, rest)) is not None:
        print(shown)
        return
    if ranks is not None:
        _become_torchrun(ranks, name, rest)
    sys.argv = [f"stackgan {name}", *rest]
    command_main(name)()


def _show_help() -> None:
    print(f"{_USAGE}\n\n{(__doc__ or '').strip()}\n")
    width = max(map(len, COMMANDS)) + 2
    print("\n".join(f"  {name:<{width}}{what}" for name, what in COMMANDS.items()))
    print("\nA command's examples: stackgan COMMAND --help; all of its options: stackgan COMMAND --help-all")


def _become_torchrun(ranks: str, name: str, arguments: list[str]) -> None:
    # Unset, torchrun would choose the same and warn about it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torchrun = [sys.executable, "-m", "stackgan_dist.launcher", "--standalone", "--nproc-per-node", ranks]
    if name not in _OTHER_RUN:
        arguments = run_in_front(arguments)  # torchrun would take --run for a flag of its own
    sys.stdout.flush()
    os.execv(sys.executable, [*torchrun, "-m", f"stackgan_dist.{name}", *arguments])


if __name__ == "__main__":
    main()
