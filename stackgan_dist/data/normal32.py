"""Standard normal numbers in float32, as training takes them: the same bits as numpy's, in half the time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from stackgan_dist.randomness import box_muller, normal_of, points_of

_LAST_BITS = 2**7
"""Numpy's and torch's logarithms and cosines are right to a few units of the last of 53 bits, and so are their
products; this is more, and 2**22 times less than a float32 can tell, so it is rarely looked at twice."""


def normal32_of(hashes: NDArray[np.uint64]) -> NDArray[np.float32]:
    """`normal_of(hashes)`, rounded to float32; hashes is an array of one dimension or more.

    Where it has vector instructions, torch takes a third of numpy's time for logarithms and cosines, which differ in
    their last bits. Once rounded they do not, unless a number lies just beside the middle between two float32 values:
    if one does, all are left to numpy.
    """
    numbers, angles = points_of(hashes)
    torch.from_numpy(numbers).log_()
    torch.from_numpy(angles).cos_()
    values = box_muller(numbers, angles)
    dropped = values.view(np.uint64) & np.uint64(2**29 - 1)  # bits that float32 has no room for
    dropped -= np.uint64(2**28 - _LAST_BITS)  # below the middle it wraps round to a large number
    if hashes.size and dropped.min() <= 2 * _LAST_BITS:
        values = normal_of(hashes)
    return values.astype(np.float32)
