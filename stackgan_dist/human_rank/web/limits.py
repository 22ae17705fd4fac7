"""How much one client may ask for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

BODY_BYTES = 8 * 1024
"""Largest request body; a vote has some 50 bytes, a sentence with its seed some 1,000."""
BODY_S = 10.0
"""How long a body may take to arrive."""
_KEYS = 10_000


@dataclass(frozen=True)
class Limits:
    """Rates, each with bursts of what it allows in a few seconds or a minute."""

    joins_per_minute: float = 60
    """New raters from one address."""
    rater_requests_per_s: float = 30
    """Requests with one rater's link, pictures included."""
    jobs_per_minute: float = 20
    """Sentences to generate from, of one address."""
    jobs_waiting: int = 8
    """Length of the one queue of them, over all clients."""


class Rate:
    """A token bucket for each key: `per_s` tokens come back every second, up to `burst`.

    Remembers the 10,000 keys used last; a forgotten key starts afresh with a full bucket.
    """

    def __init__(self, per_s: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._burst, self._clock = per_s, burst, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, key: str) -> float:
        """0 when `key` may go ahead now, which takes a token; else the seconds until it may."""
        now = self._clock()
        tokens, before = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - before) * self._per_s)
        allowed = tokens >= 1
        self._buckets[key] = (tokens - allowed, now)
        if len(self._buckets) > _KEYS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - tokens) / self._per_s
