"""torchrun, but its exit code says how a training ended: `python -m stackgan_dist.launcher [OPTIONS] -m MODULE ...`.

The options are those of torchrun.

torchrun itself ends with 1 whatever happened to its ranks, or with 0 where they stopped half-way. This ends with 0 only
when the run is DONE, with 75 when it was stopped and is to be started again, with 2 for an error that the user can
mend, and with 1 for everything else. `stackgan --ranks N` and launch/torchrun.sh start ranks by it.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from pathlib import Path

from stackgan_dist.cli.config_source import parse
from stackgan_dist.cli.doors import front_door
from stackgan_dist.errors import EXIT_PREEMPTED, EXIT_USER_ERROR, UserError
from stackgan_dist.runs.folder import Ending, RunFolder
from stackgan_dist.storage.files import join

_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)
"""What is passed on to the ranks. torchrun would die of SIGUSR1, Slurm's early warning, if it were not told to."""
_TRAINER = "stackgan_dist.train"


@front_door
def main() -> None:
    """Run torchrun in this process, then look at the run."""
    # torch is loaded only now: what imports this module for its names does not wait for it.
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    arguments = sys.argv[1:]
    folder = _run_folder(arguments)
    before = None if folder is None else folder.marker()
    # A signal that is ignored here, as SIGHUP under nohup, stays so.
    handled = [each.name for each in _HANDLED if signal.getsignal(each) is not signal.SIG_IGN]
    code = 0
    try:
        run(parse_args(["--signals-to-handle", ",".join(handled), *arguments]))
    except ChildFailedError as error:
        # The first one to fail says why; torchrun ends the others by signals.
        code = error.get_first_failure()[1].exitcode
        if code not in (EXIT_USER_ERROR, EXIT_PREEMPTED):
            code = 1
            print(error, file=sys.stderr, flush=True)
    except SignalException as caught:
        # Asked twice, torchrun leaves its ranks behind; whoever asks twice wants no end of theirs but the quickest.
        _kill_what_is_left()
        code = 128 + caught.sigval
    sys.exit(code if folder is None else _exit_code(folder, code, before))


def _run_folder(arguments: Sequence[str]) -> RunFolder | None:
    """Where the training that is started here writes; None where something else is started, or ranks will refuse."""
    if _TRAINER not in arguments:
        return None
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # rank 0 shows help and errors itself
            run = parse(list(arguments[arguments.index(_TRAINER) + 1 :])).run
    except (UserError, SystemExit):
        return None
    return RunFolder(join(run.folder, run.name))


def _kill_what_is_left() -> None:
    """Kill the ranks that torchrun has not ended, with all that they started: each is in a session of its own."""
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(int(child), signal.SIGKILL)


def _exit_code(folder: RunFolder, code: int, before: tuple[Ending, bytes] | None) -> int:
    """`code` of torchrun, corrected by the marker that the run's end left.

    What an earlier start left, `before`, does not speak for this one, which was refused where it is still there.
    """
    now = folder.marker()
    match now[0] if now is not None and now != before else None:
        case "DONE":
            return 0
        case "PREEMPTED":
            return EXIT_PREEMPTED
        case _:
            return code or 1


if __name__ == "__main__":
    main()
