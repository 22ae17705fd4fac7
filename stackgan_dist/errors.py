"""Errors that a user can act on, and the one place where a front door turns them into an exit code.

A message says what was found, what was needed and what to change. Nobody needs a traceback for that.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

EXIT_USER_ERROR = 2
_EXIT_UNREAD = 128 + signal.SIGPIPE
"""Of a command whose reader has gone, as shells have it."""
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class UserError(Exception):
    """Something that the user can put right; its text is the whole explanation.

    Under torchrun every rank meets it alike, so rank 0 alone tells it.
    """


class RankError(UserError):
    """A UserError that this rank met alone, so it tells it itself."""


def front_door(main: Callable[[], None]) -> Callable[[], None]:
    """Wrap a command's `main`: a UserError ends it with one message from rank 0 and exit code 2.

    Under torchrun the message also goes into the agent's error file, so that it stands in the summary which
    torchrun prints last. Output that nobody reads any more (`... | head`) ends it silently.
    """

    @functools.wraps(main)
    def guarded() -> None:
        try:
            try:
                explained()
            finally:
                sys.stdout.flush()  # what is left to the interpreter's end ends in a message of its own
        except BrokenPipeError:
            if not _is_unread(sys.stdout):
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the interpreter's end
            sys.exit(_EXIT_UNREAD)

    def explained() -> None:
        try:
            try:
                main()
            except OSError as error:
                if error.errno not in _DISK_FULL:
                    raise
                where = f" for {error.filename}" if error.filename else ""
                raise RankError(
                    f"no space left{where} ({error.strerror}); free some, then start the same command again: it goes "
                    "on where it can"
                ) from error
        except UserError as error:
            rank = os.environ.get("RANK", "0")
            if isinstance(error, RankError):
                print(f"error on rank {rank}: {error}", file=sys.stderr, flush=True)
            elif rank == "0":
                print(f"error: {error}", file=sys.stderr, flush=True)
            _tell_torchrun(error)
            sys.exit(EXIT_USER_ERROR)
        except KeyboardInterrupt:
            sys.exit(130)

    return guarded


def _is_unread(stream: TextIO) -> bool:
    """Whether it is a pipe whose reader has gone; pipes and sockets to elsewhere break, too."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)
        return any(events & select.POLLERR for _, events in poll.poll(0))
    except (OSError, ValueError):  # it is closed, or no file
        return False


def _tell_torchrun(error: UserError) -> None:
    # Not by torch's ErrorHandler: it would add the traceback that nobody needs.
    if path := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        content = {"message": {"message": str(error), "extraInfo": {"timestamp": str(int(time.time()))}}}
        Path(path).write_text(json.dumps(content), encoding="utf-8")
