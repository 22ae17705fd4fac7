"""Signals that end a command: which they are, and the orderly end of a command that keeps nothing for later.

A training saves first (distributed/stop.py). Everything else ends where it is: what it holds open is closed, half
written files are removed, processes that it started are ended, and its exit code is 128 + the signal's number.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C; torchrun, Slurm and Kubernetes; a terminal that is closed."""


class Interrupted(BaseException):
    """A signal asked this command to end.

    Like KeyboardInterrupt it is no Exception, so that nothing takes it for a fault that it can mend.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def handled(handler: Callable[[int, FrameType | None], None], signals: tuple[signal.Signals, ...]) -> Iterator[None]:
    """Have `handler` called for `signals` while inside; those that are ignored, as SIGHUP is under nohup, stay so."""
    previous = {}
    for number in signals if threading.current_thread() is threading.main_thread() else ():
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the signals that end a command into Interrupted while inside; a second one ends the process at once."""
    process = os.getpid()

    def interrupt(number: int, _: FrameType | None) -> None:
        if os.getpid() != process:  # a fork, which has nothing of its own to put in order
            os._exit(128 + number)
        for each in ENDING:
            if signal.getsignal(each) is not signal.SIG_IGN:
                signal.signal(each, _end_at_once)
        raise Interrupted(number)

    with handled(interrupt, ENDING):
        yield


def _end_at_once(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)


def end_with_parent() -> None:
    """From now on this process of multiprocessing ends when the one that asked for it does, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_after, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_after(parent: multiprocessing.process.BaseProcess) -> None:
    parent.join()
    os._exit(1)
