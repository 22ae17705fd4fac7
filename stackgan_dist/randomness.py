"""Counter-based randomness: every random number of a run is a pure function of its coordinates.

No generator is carried from step to step, so there is no state to save, to split among ranks or to lose. The hash
is SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014), written out here because numpy and torch keep the
right to change their generators' streams between versions, and a run must not.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum, unique

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MIX1 = 0xBF58476D1CE4E5B9
_MIX2 = 0x94D049BB133111EB
_MASK = 2**64 - 1


def _mix_number(x: int) -> int:
    x &= _MASK
    x = (x ^ (x >> 30)) * _MIX1 & _MASK
    x = (x ^ (x >> 27)) * _MIX2 & _MASK
    return x ^ (x >> 31)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Of an array that nobody else needs."""
    shifted = x >> np.uint64(30)
    x ^= shifted
    x *= np.uint64(_MIX1)
    x ^= np.right_shift(x, np.uint64(27), out=shifted)
    x *= np.uint64(_MIX2)
    x ^= np.right_shift(x, np.uint64(31), out=shifted)
    return x


def hash64(*coordinates: ArrayLike) -> NDArray[np.uint64]:
    """A 64-bit hash of non-negative integer coordinates, broadcast against each other."""
    state: int | NDArray[np.uint64] = 0
    for coordinate in coordinates:
        state = _absorb(state, coordinate)
    return np.asarray(state, dtype=np.uint64)


def extend(hashes: NDArray[np.uint64], coordinate: ArrayLike) -> NDArray[np.uint64]:
    """hash64(*coordinates, coordinate) from `hashes`, the array hash64(*coordinates)."""
    return np.asarray(_absorb(hashes if hashes.ndim else int(hashes), coordinate), dtype=np.uint64)


def _absorb(state: int | NDArray[np.uint64], coordinate: ArrayLike) -> int | NDArray[np.uint64]:
    """The hash of one more coordinate than those behind `state`."""
    if isinstance(coordinate, int) or np.ndim(coordinate) == 0:
        number = int(coordinate)  # type: ignore[arg-type]  # Python is quicker than numpy on a single one
        return _mix_number(state * _MIX2 + _GOLDEN + number) if isinstance(state, int) else _mix(_room(state, number))
    numbers = np.asarray(coordinate).astype(np.uint64, copy=False)
    return _mix((np.uint64((state * _MIX2 + _GOLDEN) & _MASK) if isinstance(state, int) else _room(state)) + numbers)


def _room(state: NDArray[np.uint64], number: int = 0) -> NDArray[np.uint64]:
    """Where another coordinate's `number` comes in."""
    prefix = state * np.uint64(_MIX2)
    prefix += np.uint64((_GOLDEN + number) & _MASK)
    return prefix


def uniform(*coordinates: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), float64, one per broadcast coordinate."""
    return uniform_of(hash64(*coordinates))


def uniform_of(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The uniform numbers of coordinates with these hashes."""
    leading = hashes >> np.uint64(11)
    values = leading.view(np.int64).astype(np.float64)  # which numbers below 2**63 are sooner than as unsigned ones
    values += 0.5
    values *= 2.0**-53
    return values


def integers(high: ArrayLike, *coordinates: ArrayLike) -> NDArray[np.int64]:
    """Integers in [0, high); the bias of at most high / 2**53 does not matter here."""
    return integers_of(hash64(*coordinates), high)


def integers_of(hashes: NDArray[np.uint64], high: ArrayLike) -> NDArray[np.int64]:
    """The integers in [0, high) of coordinates with these hashes."""
    chosen: NDArray[np.int64] = np.floor(uniform_of(hashes) * np.asarray(high)).astype(np.int64)
    return chosen


def normal(*coordinates: ArrayLike) -> NDArray[np.float64]:
    """Standard normal numbers, float64, by Box and Muller's transform of two hashes."""
    return normal_of(hash64(*coordinates))


def normal_of(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    """The standard normal numbers of coordinates with these hashes."""
    radii, angles = points_of(np.atleast_1d(hashes))
    np.log(radii, out=radii)
    np.cos(angles, out=angles)
    return box_muller(radii, angles).reshape(hashes.shape)


def points_of(hashes: NDArray[np.uint64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What Box and Muller transform: for each hash a number in (0, 1) and an angle in (0, 2 pi).

    The hashes have one dimension or more.
    """
    first = _room(hashes)
    angles = uniform_of(_mix(first + np.uint64(1)))
    angles *= 2.0 * np.pi
    return uniform_of(_mix(first)), angles


def box_muller(logarithms: NDArray[np.float64], cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """The transform, from the logarithms of the numbers, which are overwritten, and the cosines of the angles."""
    logarithms *= -2.0
    np.sqrt(logarithms, out=logarithms)
    logarithms *= cosines
    return logarithms


def permutation(n: int, *coordinates: int) -> NDArray[np.int64]:
    """A permutation of range(n)."""
    return np.argsort(hash64(*coordinates, np.arange(n)), kind="stable").astype(np.int64)


class Permutation:
    """`permutation(n, *coordinates)` for whoever asks for a few of its elements: sorted only around those.

    Kept are the leading bits of the hashes, how many there are of each, and what was sorted before; an element then
    costs the sort of the small part that shares its bits. So no single element has to wait for the whole sort, which
    takes seven times as long (n = 10,000), and several lanes that walk it at different places do not sort in turns.
    """

    def __init__(self, n: int, *coordinates: int) -> None:
        self._n, self._coordinates = n, coordinates
        self._ends: list[int] = []  # by leading bits, once they are known
        self._sorted: dict[int, NDArray[np.int32]] = {}  # by leading bits

    def __getitem__(self, place: int) -> int:
        hashes = None if self._ends else self._begin()
        bits = bisect_right(self._ends, place)
        part = self._sorted.get(bits)
        if part is None:
            part = self._sorted[bits] = self._sort(bits, hashes)
        return int(part[place - self._ends[bits]])  # counted from the end of the part

    def _begin(self) -> NDArray[np.uint64]:
        """All hashes, which are worth keeping for the first part only."""
        bits = min(8, max(1, (self._n // 64).bit_length()))
        hashes = hash64(*self._coordinates, np.arange(self._n, dtype=np.uint64))
        leading = (hashes >> np.uint64(64 - bits)).view(np.int64)
        self._leading = leading.astype(np.uint8)
        self._ends = np.bincount(leading, minlength=2**bits).cumsum().tolist()
        return hashes

    def _sort(self, bits: int, hashes: NDArray[np.uint64] | None) -> NDArray[np.int32]:
        part: NDArray[np.intp] = (self._leading == bits).nonzero()[0]
        of_part = hash64(*self._coordinates, part) if hashes is None else hashes[part]
        return part[np.argsort(of_part, kind="stable")].astype(np.int32)


@unique
class Stream(IntEnum):
    """One number per purpose keeps the draws of a row independent of each other. Never renumber: runs depend on it."""

    SHARD_ORDER = 0
    SAMPLE_ORDER = 1
    CAPTION = 2
    CROP_LEFT = 3
    CROP_TOP = 4
    FLIP = 5
    WRONG_SAMPLE = 6
    WRONG_CAPTION = 7
    NOISE = 8
    CONDITIONING = 9
    SCORE_SAMPLE = 10
    SCORE_CAPTION = 11
    SCORE_NOISE = 12
    SCORE_CONDITIONING = 13
    PARTNER_SAMPLE = 14
    PARTNER_CAPTION = 15
    BETWEEN_NOISE = 16
    BETWEEN_CONDITIONING = 17
    SCORE_REAL = 18
    SCORE_CANDIDATE = 19
    SCORE_WRONG = 20
    HELD_OUT = 21
    CLASSIFIER_CROP = 22
    NOISE_PICTURE = 23
    EMBEDDING_CLASS = 24
    EMBEDDING_PICTURE = 25
    EMBEDDING_VIEW = 26
    EMBEDDING_CAPTION = 27
    EMBEDDING_DROPOUT = 28
    FINE_TUNING_ORDER = 29
    POOL_SHARD = 30
    POOL_PICTURE = 31
    POOL_CAPTION = 32
    SCORE_RESAMPLE = 33
    SCORE_SUBSET = 34


def pick(point: float, among: int) -> int:
    """The choice, in 0..among - 1, that a point stands for."""
    return int(point * among)
