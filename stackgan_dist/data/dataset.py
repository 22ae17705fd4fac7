"""A packed data set as a run sees it: which folder, its index, its plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from stackgan_dist.config import DataConfig, TrainingConfig
from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.cache_folder import default_cache_folder
from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.index import Index, NoIndexError, load_index, stored_size
from stackgan_dist.data.pack_command import missing_command, packed_splits
from stackgan_dist.data.plan import Plan
from stackgan_dist.data.text_pool import TextPool
from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import Folder


@dataclass(frozen=True)
class PackedSet:
    """One split of a data set at one picture size."""

    folder: Folder
    """Of its index and shards."""
    index: Index
    cache_folder: Path
    cache_bytes: int

    @property
    def url(self) -> str:
        """Its path or URL, for messages and records."""
        return self.folder.url

    def cache(self) -> ShardCache:
        """A way to its shards."""
        return ShardCache(self.folder, self.index, self.cache_folder, self.cache_bytes)

    def captions(self) -> CaptionSet:
        """A way to its captions."""
        return CaptionSet(self.index, self.cache())

    def plan(self, training: TrainingConfig) -> Plan:
        """The order in which a run reads its samples; UserError when they do not fill one batch."""
        return Plan([shard.samples for shard in self.index.shards], training.seed, training.batch_size)

    def text_pool(self, training: TrainingConfig) -> TextPool | None:
        """The texts that a run's pictures pick their own out of; read now, and None without the contrastive term."""
        if not training.contrastive_weight:
            return None
        return TextPool.read(self.index, self.cache(), training.seed, training.captions_per_text)


def open_packed(data: DataConfig, image_size: int, split: str | None = None) -> PackedSet:
    """The split (default: the one to train on) of `data` for crops of `image_size` pixels.

    Raises UserError with the command that makes it when it is not there.
    """
    size = stored_size(image_size)
    split = split or data.split
    folder = Folder.at(data.url) / split / str(size)
    try:
        index = load_index(folder)
    except NoIndexError:
        how = missing_command(data.url, split, size)
        if split != "train" and (there := packed_splits(data.url, size)):
            how += f"\nOr take a split that is there, with --split {' or --split '.join(there)}"
        raise NoIndexError(folder.url, how) from None
    if index.image_size != size:
        raise UserError(
            f"{folder} holds pictures of {index.image_size} pixels, crops of {image_size} need {size}; "
            f"pack it with --sizes {size}"
        )
    cache_folder = Path(data.cache) if data.cache else default_cache_folder()
    return PackedSet(folder, index, cache_folder, int(data.cache_gb * 1e9))
