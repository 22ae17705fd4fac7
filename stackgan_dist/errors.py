"""Errors that a user can act on, and the one place where a front door turns them into an exit code.

A message says what was found, what was needed and what to change. Nobody needs a traceback for that.
"""

from __future__ import annotations

EXIT_USER_ERROR = 2


class UserError(Exception):
    """Something that the user can put right; its text is the whole explanation.

    Under torchrun every rank meets it alike, so rank 0 alone tells it.
    """


class RankError(UserError):
    """A UserError that this rank met alone, so it tells it itself."""
