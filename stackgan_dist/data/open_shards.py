"""The shards that a process has open, the latest used last."""

from __future__ import annotations

from collections import OrderedDict

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.index import Index
from stackgan_dist.data.shard import ShardReader


class OpenShards:
    """Readers of a data set's shards by number; at most `keep` stay open."""

    def __init__(self, index: Index, cache: ShardCache, keep: int) -> None:
        self._index, self._cache, self._keep = index, cache, keep
        self._readers: OrderedDict[int, ShardReader] = OrderedDict()

    def __getitem__(self, number: int) -> ShardReader:
        if number not in self._readers:
            shard = self._index.shards[number]
            self._readers[number] = ShardReader(self._cache.open(number), shard.name, shard.samples)
            self.close_removed()
            if len(self._readers) > self._keep:
                self._readers.popitem(last=False)[1].close()
        self._readers.move_to_end(number)
        return self._readers[number]

    def close_removed(self) -> None:
        """Free the room of what the cache has removed meanwhile, here or in another process."""
        for number in [each for each, reader in self._readers.items() if self._cache.wants_back(reader.file)]:
            self._readers.pop(number).close()
