"""How often and how long a store is asked again before a fault counts as lasting."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from stackgan_dist.errors import UserError

T = TypeVar("T")

_LONGEST_PAUSE_S = 20.0

# What a fault's text holds, by what is to be done.
_REFUSED = ("PermissionError", "NoCredentials", "AccessDenied", "Forbidden", "Unauthorized")
_MISSING = ("FileNotFoundError",)
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED",)
_UNKNOWN = ("EndpointConnectionError", "ConnectorDNSError", "getaddrinfo", "Name or service")


class StoreError(UserError):
    """A store did not do what it was asked to, for as long as it was given.

    It says nothing about what lies there: whoever looks for the newest good file must not take it for a missing one.
    """


class WrongSizeError(Exception):
    """The store says that the object has another size."""

    def __init__(self, found: int) -> None:
        super().__init__(f"the object has {found} bytes")
        self.found = found


@dataclass(frozen=True)
class Patience:
    """Bounds on asking again; both count from the last progress."""

    attempts: int = 8
    """So many faults in a row are one too many."""
    total_s: float = 120.0
    """Seconds; no new attempt begins after them. An attempt itself is bounded by the client's timeouts."""


_PATIENCE = Patience(attempts=5)
"""With a request for something small, such as a listing or a commit record."""


class Attempts:
    """The attempts at one piece of work, e.g. "read s3://bucket/key".

    Pauses between them grow from 0.2 s by factors of two, with jitter, since many ranks meet a fault at once. They
    are plain sleeps: signal handlers run during them.
    """

    def __init__(self, work: str, patience: Patience | None = None) -> None:
        self._work = work
        self._patience = patience or _PATIENCE
        self.made = 0
        """Since the last progress."""
        self.progress()

    def progress(self) -> None:
        """Count from here."""
        self.made = 0
        self._begin = time.monotonic()

    @property
    def overdue(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() - self._begin > self._patience.total_s

    def failed(self, fault: str, *, at_most: int | None = None) -> None:
        """Note a fault and pause; StoreError when it was the last one allowed (of `at_most`, if that is fewer)."""
        self.made += 1
        if self.made >= min(self._patience.attempts, at_most or self._patience.attempts) or self.overdue:
            raise self.give_up(fault)
        time.sleep(min(_LONGEST_PAUSE_S, 0.2 * 2**self.made) * random.uniform(0.5, 1.0))

    def give_up(self, fault: str) -> StoreError:
        """The error that says so."""
        times = f"{self.made} attempt" + "s"[: self.made != 1]
        return StoreError(
            f"cannot {self._work} after {times} in {time.monotonic() - self._begin:.0f} s; the last fault was: "
            f"{fault}. {_advice(fault)}, then start again: a run goes on at its last checkpoint"
        )


def patiently(work: str, action: Callable[[], T]) -> T:
    """`action()` on a store, tried again after a fault; what is not there, or not allowed, stays so.

    Raises what says that nothing is there (FileNotFoundError, NotADirectoryError, IsADirectoryError) or too much
    (FileExistsError) as it is, and everything else as StoreError.
    """
    attempts = Attempts(work)
    while True:
        try:
            return action()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, FileExistsError):
            raise
        except (PermissionError, NotImplementedError) as error:
            attempts.made += 1
            raise attempts.give_up(describe(error)) from error
        except Exception as error:  # every store has its own family of transient errors
            final = type(error).__name__ == "NoCredentialsError" or getattr(error, "status", None) in (401, 403)
            attempts.failed(describe(error), at_most=1 if final else None)


def describe(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _advice(fault: str) -> str:
    signs = {
        _REFUSED: "Check the credentials (for s3:// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE) and "
        "the bucket's policy (without s3:ListBucket, S3 answers 403 for what is not there, too)",
        _MISSING: "Check that the object is there: the set may not be complete, or the name of the bucket wrong",
        _UNKNOWN: "Check the endpoint's name (for s3:// AWS_ENDPOINT_URL) and the network",
        _UNTRUSTED: "Check the server's certificate; one of your own authority needs its file in SSL_CERT_FILE",
    }
    for names, advice in signs.items():
        if any(name in fault for name in names):
            return advice
    return "Check the object and the network"
