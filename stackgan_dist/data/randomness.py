"""Counter-based randomness: every random number of a run is a pure function of its coordinates.

No generator is carried from step to step, so there is no state to save, to split among ranks or to lose. The hash
is SplitMix64's finaliser (Steele, Lea, Flood, OOPSLA 2014), written out here because numpy and torch keep the
right to change their generators' streams between versions, and a run must not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * _MIX1
    x = (x ^ (x >> np.uint64(27))) * _MIX2
    return x ^ (x >> np.uint64(31))


def hash64(*coordinates: ArrayLike) -> NDArray[np.uint64]:
    """A 64-bit hash of non-negative integer coordinates, broadcast against each other."""
    state = np.zeros((), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for coordinate in coordinates:
            state = _mix(state * _MIX2 + np.asarray(coordinate).astype(np.uint64) + _GOLDEN)
    return state


def uniform(*coordinates: ArrayLike) -> NDArray[np.float64]:
    """Uniform numbers in (0, 1), float64, one per broadcast coordinate."""
    return ((hash64(*coordinates) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def integers(high: ArrayLike, *coordinates: ArrayLike) -> NDArray[np.int64]:
    """Integers in [0, high); the bias of at most high / 2**53 does not matter here."""
    return np.floor(uniform(*coordinates) * np.asarray(high)).astype(np.int64)


def normal(*coordinates: ArrayLike) -> NDArray[np.float64]:
    """Standard normal numbers, float64, by Box and Muller's transform of two hashes."""
    radius = np.sqrt(-2.0 * np.log(uniform(*coordinates, 0)))
    return radius * np.cos(2.0 * np.pi * uniform(*coordinates, 1))


def permutation(n: int, *coordinates: int) -> NDArray[np.int64]:
    """A permutation of range(n)."""
    return np.argsort(hash64(*coordinates, np.arange(n)), kind="stable").astype(np.int64)
