"""Starting torchrun groups, and making sure that nothing of them is left.

Every process of a launch inherits a mark in its environment, by which it is found again even when its parents are
gone and it is in a session of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from free_ports import free_port

REPOSITORY = Path(__file__).parents[2]
FORKING_TORCHRUN = Path(__file__).with_name("forking_torchrun.py")
_MARK = "STACKGAN_TEST_LAUNCH"


@dataclass(frozen=True)
class Result:
    """How a launch ended."""

    code: int
    output: str
    """stdout and stderr together."""


class Launch:
    """`torchrun -m MODULE ARGS` (or `torchrun SCRIPT ARGS`) with `ranks` processes on this machine.

    Args:
        ranks: the world size.
        what: a module's name, or the path of a script.
        args: its arguments.
        log: where stdout and stderr go.
        shutdown_s: how long torchrun waits before it kills its ranks when it is terminated itself (when a rank has
            failed, and before torch 2.13, it is always 30 s).
        forking: whether torchrun forks its ranks, so that they start at once (forking_torchrun.py).
    """

    def __init__(
        self, ranks: int, what: str, args: Sequence[str], log: Path, *, shutdown_s: int = 30, forking: bool = False
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._log = log
        self._forking = forking
        agent = [str(FORKING_TORCHRUN)] if forking else ["-m", "torch.distributed.run"]
        command = [sys.executable, *agent, "--nproc-per-node", str(ranks)]
        command += ["--master-port", str(free_port())]
        command += [what] if what.endswith(".py") else ["-m", what]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(shutdown_s),
            "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}",
            _MARK: self._mark,
        }
        with log.open("w") as output:
            self.agent = subprocess.Popen(
                [*command, *args],
                cwd=REPOSITORY,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def processes(self) -> list[int]:
        """Ids of all that is left of it, loader workers and orphans included."""
        mark = f"{_MARK}={self._mark}".encode()
        found = []
        for folder in Path("/proc").iterdir():
            try:
                if folder.name.isdigit() and mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return sorted(found)

    def ranks(self) -> list[int]:
        """Ids of the ranks' processes, by rank, once they run."""
        children = [process for process in self.processes() if _parent(process) == self.agent.pid]
        if self._forking:  # in the order of their starts; the system knows a fork's environment of its parent only
            return children
        by_rank: dict[int, int] = {}
        for process in children:
            rank = _variable(process, "RANK")
            if rank is not None:
                by_rank[int(rank)] = process
        return [by_rank[rank] for rank in sorted(by_rank)]

    def until(self, true: Callable[[], bool], timeout_s: float = 600) -> None:
        """Wait until `true()`; AssertionError with the output when the launch ends first or the time is over."""
        deadline = time.monotonic() + timeout_s
        while not true():
            assert self.agent.poll() is None, f"ended with {self.agent.returncode}:\n{self.output}"
            assert time.monotonic() < deadline, f"still waiting after {timeout_s} s:\n{self.output}"
            time.sleep(0.02)

    def wait(self, timeout_s: float = 300) -> Result:
        """Wait for its end; everything is killed when the time is over (AssertionError)."""
        try:
            code = self.agent.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"did not end in {timeout_s} s:\n{self.output}") from None
        finally:
            if self.agent.poll() is None:
                self.kill()
        return Result(code, self.output)

    def vanished(self, timeout_s: float = 10) -> bool:
        """Whether nothing of it is left after at most `timeout_s` (an orphaned loader worker looks every 5 s)."""
        deadline = time.monotonic() + timeout_s
        while self.processes():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    def kill(self) -> None:
        """End all of it at once."""
        while left := self.processes():
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            self.agent.poll()
            time.sleep(0.02)
        self.agent.wait()


def torchrun(ranks: int, what: str, args: Sequence[str], log: Path, timeout_s: float = 300) -> Result:
    """Run a launch to its end; nothing of it is left, or AssertionError."""
    launch = Launch(ranks, what, args, log)
    try:
        result = launch.wait(timeout_s)
        assert launch.vanished(), f"processes are left: {launch.processes()}\n{result.output}"
        return result
    finally:
        launch.kill()


def _parent(process: int) -> int | None:
    try:
        # The name in parentheses may hold blanks; the parent is the second field after it.
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None


def _variable(process: int, name: str) -> str | None:
    try:
        variables = Path(f"/proc/{process}/environ").read_bytes().decode(errors="replace").split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return dict(pair.partition("=")[::2] for pair in variables).get(name)
