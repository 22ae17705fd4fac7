"""Groups of real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from stackgan_dist.data.cache import ShardCache
from stackgan_dist.data.captions import CaptionSet
from stackgan_dist.data.index import load_index
from stackgan_dist.data.pictures import PicturesOfClasses, decoded, middle


def test_a_group_has_different_pictures_of_one_class(packed: Path, tmp_path: Path) -> None:
    url = str(packed / "test" / "76")
    index = load_index(url)
    captions = CaptionSet(index, ShardCache(url, index, tmp_path, 10**9))
    class_of = {}
    for number in range(len(captions)):
        caption = captions.caption(number, 0)
        class_of[middle(decoded(captions, caption), 64).tobytes()] = caption.class_name

    def groups(limit: int, ranks: int) -> list[list[bytes]]:
        found: dict[int, list[list[bytes]]] = {}
        for rank in range(ranks):
            pictures = PicturesOfClasses(captions, 64, limit, 2, batch_size=4, seed=0)  # two groups to a batch
            for turn, images in enumerate(pictures.batches(rank, ranks)):
                pixels = ((images + 1) * 127.5).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()
                found[turn * ranks + rank] = [
                    [np.ascontiguousarray(p).tobytes() for p in pixels[i : i + 2]] for i in range(0, len(pixels), 2)
                ]
        return [group for batch in sorted(found) for group in found[batch]]

    alone = groups(100, 1)
    assert len(alone) > 2
    for group in alone:
        assert len(set(group)) == 2
        assert len({class_of[picture] for picture in group}) == 1
    assert len({picture for group in alone for picture in group}) == 2 * len(alone)
    assert groups(100, 3) == alone
    assert groups(2, 1) == alone[:2]
