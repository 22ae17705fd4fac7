"""Shards that the coming steps need, fetched in the background."""

from __future__ import annotations

import threading

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.errors import UserError

_FETCHES_AT_ONCE = 2
"""By one process: a store answers each request after a while, and often with less than the line can carry."""


class Prefetcher:
    """Fetches shards in the background, in the order of need; faults are left to the reader that meets them."""

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._wanted: list[int] = []
        self._changed = threading.Condition()
        for _ in range(_FETCHES_AT_ONCE):
            threading.Thread(target=self._run, name="shard-prefetch", daemon=True).start()

    def want(self, shards: list[int]) -> None:
        """From now on fetch these, the first one first."""
        with self._changed:
            self._wanted = shards
            self._changed.notify_all()

    def _run(self) -> None:
        wanted: list[int] = []
        while True:
            with self._changed:
                while self._wanted is wanted:
                    self._changed.wait()
                wanted = self._wanted
            for number in wanted:
                if wanted is not self._wanted:  # the run has moved on
                    break
                try:
                    self._cache.fetch_ahead(number, keep=wanted)
                except (UserError, OSError):
                    break
