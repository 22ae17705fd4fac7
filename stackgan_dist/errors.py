"""Errors that a user can act on, and how a command ends.

A message says what was found, what was needed and what to change. Nobody needs a traceback for that.
"""

from __future__ import annotations

EXIT_USER_ERROR = 2
"""Of a command that refused something which the user can mend."""
EXIT_PREEMPTED = 75
"""Of a training that was stopped with a checkpoint and is to be started again: EX_TEMPFAIL of sysexits.h."""


class UserError(Exception):
    """Something that the user can put right; its text is the whole explanation.

    Under torchrun every rank meets it alike, so rank 0 alone reports it.
    """


class RankError(UserError):
    """A UserError that this rank met alone, so it reports it itself."""


def first_line(error: BaseException) -> str:
    """What an error says in its first line, or its kind where it says nothing: for a message that names the cause."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
