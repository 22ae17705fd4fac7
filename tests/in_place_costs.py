"""What training from pictures as they lie would cost: `python tests/in_place_costs.py FOLDER`, with *.jpg below it.

Bytes to fetch and pictures to decode per second of one core, of the originals and of what `pack` makes of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import simplejpeg
from PIL import Image

from stackgan_dist.pack.pictures import Frame, encode_jpeg, load_picture

STORED = 76
REPEATS = 5


def whole(data: bytes) -> object:
    """As `pack` does it: every kind of JPEG, the best filter."""
    image = load_picture(data)
    return np.asarray(Frame.of(image).resample(image, STORED))


def reduced(data: bytes) -> object:
    """As fast as it goes: decoded at a fraction of its size, squeezed by the simplest filter."""
    pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", min_height=STORED, min_width=STORED)
    return np.asarray(Image.fromarray(pixels).resize((STORED, STORED), Image.Resampling.NEAREST))


def packed(data: bytes) -> object:
    """As the loader does it."""
    return simplejpeg.decode_jpeg(data, colorspace="RGB")


def rate(work: Callable[[bytes], object], pictures: Sequence[bytes]) -> float:
    """Pictures per second of CPU time, the median of a few passes."""
    rates = []
    for _ in range(REPEATS):
        begin = time.thread_time()
        for data in pictures:
            work(data)
        rates.append(len(pictures) / (time.thread_time() - begin))
    return statistics.median(rates)


def main() -> None:
    """Read, pack, time, print."""
    originals = [path.read_bytes() for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))[:500]]
    stored = []
    for data in originals:
        image = load_picture(data)
        stored.append(encode_jpeg(Frame.of(image).resample(image, STORED)))
    print(f"{len(originals)} pictures")
    for name, pictures, work in (
        ("originals, as packing does it", originals, whole),
        ("originals, as fast as it goes", originals, reduced),
        (f"packed at {STORED} px", stored, packed),
    ):
        mean = sum(map(len, pictures)) / len(pictures)
        print(f"{name:32}{mean:>9,.0f} bytes each{rate(work, pictures):>9,.0f} img/s")


if __name__ == "__main__":
    main()
