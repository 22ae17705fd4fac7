"""What a script wants to know of a run: `python -m stackgan_dist.runs folder|ending|forget ...`.

folder [FLAGS OF train]  prints where that run would be written
ending RUN MARKER        prints what DONE or PREEMPTED in it says; exit code 1 when there is no such marker
forget RUN MARKER        removes the marker

RUN may be given as --run RUN as well.
"""

from __future__ import annotations

import sys

from stackgan_dist.cli.config_source import parse
from stackgan_dist.cli.doors import front_door
from stackgan_dist.errors import UserError
from stackgan_dist.runs.folder import ENDINGS
from stackgan_dist.storage.folder import Folder


@front_door
def main() -> None:
    """Find the command, answer."""
    match _run_behind(sys.argv[1:]):
        case [] | ["-h" | "--help" | "--help-all", *_]:
            print(f"usage: python -m stackgan_dist.runs COMMAND ...\n\n{__doc__}")
        case ["folder", *flags]:
            run = parse(flags).run
            print(Folder.at(run.folder) / run.name)
        case ["ending", run, marker] if marker in ENDINGS:
            try:
                print(Folder.at(run).read(marker).decode().strip())
            except (FileNotFoundError, NotADirectoryError):
                sys.exit(1)
        case ["forget", run, marker] if marker in ENDINGS:
            Folder.at(run).remove(marker)
        case found:
            raise UserError(
                f"{' '.join(found)!r} is no command; give folder [FLAGS], ending RUN MARKER or forget RUN MARKER, with "
                f"{' or '.join(ENDINGS)} for MARKER"
            )


def _run_behind(arguments: list[str]) -> list[str]:
    """`arguments` of ending and forget, with a run that is given as --run behind their name."""
    match arguments:
        case [("ending" | "forget") as command, "--run", run, marker]:
            return [command, run, marker]
        case [("ending" | "forget") as command, marker, "--run", run]:
            return [command, run, marker]
    return arguments


if __name__ == "__main__":
    main()
