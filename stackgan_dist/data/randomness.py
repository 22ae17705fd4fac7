"""Counter-based randomness: every random number of a run is a pure function of its coordinates.

No generator is carried from step to step, so there is no state to save, to split among ranks or to lose. The hash
is SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014), written out here because numpy and torch keep the
right to change their generators' streams between versions, and a run must not.
"""

from __future__ import annotations

from bisect import bisect_right

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
    x ^= x >> np.uint64(30)
    x *= np.uint64(_MIX1)
    x ^= x >> np.uint64(27)
    x *= np.uint64(_MIX2)
    x ^= x >> np.uint64(31)
    return x


def hash64(*coordinates: ArrayLike) -> NDArray[np.uint64]:
    """A 64-bit hash of non-negative integer coordinates, broadcast against each other."""
    state: int | NDArray[np.uint64] = 0
    for coordinate in coordinates:
        state = _absorb(state, coordinate)
    return np.asarray(state, dtype=np.uint64)


def _absorb(state: int | NDArray[np.uint64], coordinate: ArrayLike) -> int | NDArray[np.uint64]:
    """The hash of one more coordinate than those behind `state`."""
    if isinstance(state, int) and isinstance(coordinate, int):  # Python is quicker than numpy on these
        return _mix_number(state * _MIX2 + _GOLDEN + coordinate)
    with np.errstate(over="ignore"):
        prefix = np.asarray(state, dtype=np.uint64) * np.uint64(_MIX2) + np.uint64(_GOLDEN)
        return _mix(prefix + np.asarray(coordinate).astype(np.uint64, copy=False))


def uniform(*coordinates: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), float64, one per broadcast coordinate."""
    return _in_unit_interval(hash64(*coordinates))


def _in_unit_interval(hashes: NDArray[np.uint64]) -> NDArray[np.float64]:
    return ((hashes >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def integers(high: ArrayLike, *coordinates: ArrayLike) -> NDArray[np.int64]:
    """Integers in [0, high); the bias of at most high / 2**53 does not matter here."""
    return np.floor(uniform(*coordinates) * np.asarray(high)).astype(np.int64)


def normal(*coordinates: ArrayLike) -> NDArray[np.float64]:
    """Standard normal numbers, float64, by Box and Muller's transform of two hashes."""
    common = hash64(*coordinates)
    first, second = (_in_unit_interval(np.asarray(_absorb(common, number), np.uint64)) for number in (0, 1))
    return np.sqrt(-2.0 * np.log(first)) * np.cos(2.0 * np.pi * second)


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
        self._coordinates = coordinates
        bits = min(8, max(1, (n // 64).bit_length()))
        leading = (hash64(*coordinates, np.arange(n, dtype=np.uint64)) >> np.uint64(64 - bits)).view(np.int64)
        self._leading = leading.astype(np.uint8)
        self._ends: list[int] = np.bincount(leading, minlength=2**bits).cumsum().tolist()
        self._sorted: dict[int, NDArray[np.int32]] = {}  # by leading bits

    def __getitem__(self, place: int) -> int:
        bits = bisect_right(self._ends, place)
        part = self._sorted.get(bits)
        if part is None:
            part = self._sorted[bits] = self._sort(bits)
        return int(part[place - self._ends[bits]])  # counted from the end of the part

    def _sort(self, bits: int) -> NDArray[np.int32]:
        part = (self._leading == bits).nonzero()[0]
        return part[np.argsort(hash64(*self._coordinates, part), kind="stable")].astype(np.int32)
