"""torchrun whose ranks are forks of it: `python forking_torchrun.py ARGUMENTS OF TORCHRUN`, for ranks of Python.

It loads once what each of its ranks would load for six seconds. All else, signals and sessions included, is torchrun's.
"""

from __future__ import annotations

import atexit
import os
import runpy
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from torch.distributed.elastic.multiprocessing.subprocess_handler import subprocess_handler
from torch.distributed.run import main

import stackgan_dist.train.__main__  # noqa: F401


class ForkedRank(subprocess.Popen):  # type: ignore[type-arg]
    """`python -u SCRIPT ARGUMENTS` or `python -u -m MODULE ARGUMENTS` in a fork of this process."""

    def _execute_child(self, args: Sequence[str], *settings: Any) -> None:
        environment = settings[5]  # executable, preexec_fn, close_fds, pass_fds, cwd, env, ...
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        self._child_created = True
        if self.pid == 0:
            _become(list(args[2:]), environment)


def _become(command: list[str], environment: dict[str, str]) -> None:
    """Do what a fresh interpreter would, and end."""
    os.setsid()
    # A rank that held on to torchrun's sockets would keep them open when torchrun is killed.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    code: Any = 0
    try:
        if command[0] == "-m":
            sys.argv = command[1:]
            runpy.run_module(command[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = command
            runpy.run_path(command[0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    subprocess_handler.Popen = ForkedRank  # type: ignore[misc]
    main()
