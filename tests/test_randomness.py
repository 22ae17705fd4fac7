"""Counter-based randomness: values that may never change, and distributions that are what they are called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from stackgan_dist import randomness
from stackgan_dist.data import rows
from stackgan_dist.data.rows import OF_ROWS, RowDraws, gaussian, normal32_of
from stackgan_dist.randomness import (
    Permutation,
    Stream,
    extend,
    hash64,
    integers,
    normal,
    normal_of,
    permutation,
    uniform,
)

# Pinned: whoever changes a stream changes every run that goes on, and every reported score.


def test_hashes_are_pinned() -> None:
    assert [int(value) for value in hash64(3, 8, 100, np.arange(3))] == [
        12323385515111756682,
        14510163775424545292,
        10502714770878277854,
    ]


def test_derived_numbers_are_pinned() -> None:
    assert permutation(10, 5, 1).tolist() == [4, 3, 8, 6, 7, 0, 1, 5, 9, 2]
    assert integers(1000, 5, np.arange(6)).tolist() == [111, 261, 115, 952, 349, 173]
    np.testing.assert_allclose(
        uniform(5, np.arange(3)), [0.11184404676168419, 0.26185406627625923, 0.11519347438859046], rtol=1e-15
    )
    np.testing.assert_allclose(
        normal(5, np.arange(3)), [-0.5377980385424389, -0.11197220720804953, -2.472670421876261], rtol=1e-12
    )


def test_draws_are_pinned() -> None:
    drawn = RowDraws(1, 20, range(8), OF_ROWS)
    crops, flips = drawn.crops_and_flips(12)
    assert crops[:3].tolist() == [[8, 7], [4, 0], [12, 8]]
    assert flips.tolist() == [True, True, True, False, True, False, False, False]
    assert [chosen[3].tolist() for chosen in drawn.captions((Stream.CAPTION,), 10, 4)] == [[3, 9, 4, 0]]
    assert [randomness.pick(point, 50) for point in drawn.points(Stream.WRONG_SAMPLE)[:4]] == [43, 6, 2, 25]
    np.testing.assert_allclose(
        gaussian(1, Stream.NOISE, 20, [3], 3), [[-0.032894116, 0.27774411, -0.37616357]], rtol=1e-6
    )


def test_streams_keep_their_numbers() -> None:
    assert {stream.name: int(stream) for stream in Stream} == {
        "SHARD_ORDER": 0, "SAMPLE_ORDER": 1, "CAPTION": 2, "CROP_LEFT": 3, "CROP_TOP": 4, "FLIP": 5,
        "WRONG_SAMPLE": 6, "WRONG_CAPTION": 7, "NOISE": 8, "CONDITIONING": 9, "SCORE_SAMPLE": 10,
        "SCORE_CAPTION": 11, "SCORE_NOISE": 12, "SCORE_CONDITIONING": 13,
        "PARTNER_SAMPLE": 14, "PARTNER_CAPTION": 15, "BETWEEN_NOISE": 16, "BETWEEN_CONDITIONING": 17,
        "SCORE_REAL": 18, "SCORE_CANDIDATE": 19, "SCORE_WRONG": 20, "HELD_OUT": 21, "CLASSIFIER_CROP": 22,
        "NOISE_PICTURE": 23, "EMBEDDING_CLASS": 24, "EMBEDDING_PICTURE": 25, "EMBEDDING_VIEW": 26,
        "EMBEDDING_CAPTION": 27, "EMBEDDING_DROPOUT": 28, "FINE_TUNING_ORDER": 29,
        "POOL_SHARD": 30, "POOL_PICTURE": 31, "POOL_CAPTION": 32,
        "SCORE_RESAMPLE": 33, "SCORE_SUBSET": 34,
    }  # fmt: skip


def test_hashes_of_many_coordinates_differ() -> None:
    hashes = hash64(0, np.arange(50)[:, None, None], np.arange(50)[:, None], np.arange(50))
    assert len(np.unique(hashes)) == hashes.size
    assert int(hash64(1, 2)) != int(hash64(2, 1))
    assert int(hash64(1)) != int(hash64(1, 0))


def test_a_bit_flips_half_of_the_bits() -> None:
    """An avalanche, in every coordinate."""
    for position in range(3):
        base = np.stack(np.meshgrid(np.arange(20), np.arange(20), np.arange(20))).reshape(3, -1)
        changed = base.copy()
        changed[position] ^= 1
        differing = np.bitwise_count(hash64(*base) ^ hash64(*changed))
        assert abs(differing.mean() - 32) < 0.3


@pytest.mark.parametrize("vary", [0, 1, 2])
def test_uniform_is_uniform_along_every_coordinate(vary: int) -> None:
    coordinates: list[object] = [1, 2, 3]
    coordinates[vary] = np.arange(100_000)
    values = uniform(*coordinates)
    assert values.min() > 0
    assert values.max() < 1
    assert stats.kstest(values, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.01


def test_normal_is_standard_normal() -> None:
    values = normal(1, np.arange(400)[:, None], np.arange(250))
    assert stats.kstest(values.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(values.T) - np.eye(250)).max() < 0.3


def test_integers_are_uniform() -> None:
    counts = np.bincount(integers(13, 9, np.arange(130_000)), minlength=13)
    assert stats.chisquare(counts).pvalue > 1e-3
    assert len(counts) == 13


def test_permutations_hold_everything_once_and_all_are_as_likely() -> None:
    for n in (0, 1, 2, 257):
        assert sorted(permutation(n, 4, n).tolist()) == list(range(n))
    counts: dict[tuple[int, ...], int] = {}
    for number in range(24_000):
        order = tuple(permutation(4, 11, number).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("n", [1, 2, 40, 257, 10_000])
def test_a_permutation_by_element_is_the_same_in_any_order_of_asking(n: int) -> None:
    whole = permutation(n, 4, n)
    by_element = Permutation(n, 4, n)
    for place in [*permutation(n, 1).tolist(), *range(min(n, 300))]:
        assert by_element[place] == whole[place]


def test_equal_hashes_keep_the_order_of_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    coarse = lambda *coordinates: hash64(*coordinates) >> np.uint64(54) << np.uint64(54)  # noqa: E731
    monkeypatch.setattr(randomness, "hash64", coarse)
    whole = permutation(20_000, 4)
    by_element = Permutation(20_000, 4)
    assert [by_element[place] for place in permutation(20_000, 1).tolist()] == whole[permutation(20_000, 1)].tolist()


def test_an_element_of_a_large_permutation_sorts_a_small_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations are counted, since times are not the same twice: one pass over all hashes, and little more."""
    hashed: list[int] = []

    def counting(*coordinates: object) -> object:
        hashes = hash64(*coordinates)
        hashed.append(hashes.size)
        return hashes

    monkeypatch.setattr(randomness, "hash64", counting)
    by_element = Permutation(10_000, 4)
    for place in range(0, 10_000, 500):
        by_element[place]
    assert hashed[0] == 10_000
    assert max(hashed[1:]) < 100
    assert len(hashed) <= 21


def test_numbers_and_arrays_hash_alike() -> None:
    large = 2**63 + 12345
    assert int(hash64(1, large, 3)) == int(hash64(np.uint64(1), np.uint64(large), np.uint64(3)))
    assert int(hash64(1, large, np.arange(4))[3]) == int(hash64(1, large, 3))
    for rest in (3, np.uint64(3), np.arange(4)[:, None]):
        assert np.array_equal(extend(hash64(1, large), rest), hash64(1, large, rest))
        assert np.array_equal(extend(hash64(1, np.arange(3)), rest), hash64(1, np.arange(3), rest))


def _all_drawn(rows: Sequence[int], streams: Sequence[Stream]) -> list[np.ndarray]:
    drawn = RowDraws(1, 5, rows, streams)
    return [
        *drawn.crops_and_flips(12),
        np.array(drawn.points(Stream.WRONG_SAMPLE)),
        *drawn.captions((Stream.WRONG_CAPTION, Stream.CAPTION), 10, 4),
        *drawn.gaussians({Stream.NOISE: 4, Stream.CONDITIONING: 9}),
    ]


def test_a_row_s_draws_depend_neither_on_the_rows_nor_on_the_streams_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _all_drawn(range(7), OF_ROWS)
    parts = [_all_drawn(rows, OF_ROWS[::-1]) for rows in (range(2), [2, 3], range(4, 7))]
    for one, several in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(one, np.concatenate(several))
    np.testing.assert_array_equal(whole[-2], gaussian(1, Stream.NOISE, 5, range(7), 4))
    monkeypatch.setattr(rows, "_BLOCK", 30)  # two rows at a time
    for one, in_blocks in zip(whole, _all_drawn(range(7), OF_ROWS), strict=True):
        np.testing.assert_array_equal(one, in_blocks)


def test_normal_numbers_in_float32_are_the_rounded_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, whatever the last digits of the quicker logarithm are."""
    hashes = [hash64(3, number, np.arange(2000).reshape(40, 50)) for number in range(200)]
    expected = [normal_of(each).astype(np.float32) for each in hashes]
    for ours, theirs in zip(map(normal32_of, hashes), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)

    class _Inexact:
        error = 0

        def __init__(self, values: np.ndarray) -> None:
            self._values = values

        def log_(self) -> None:
            np.log(self._values, out=self._values)
            self._values.view(np.int64)[...] += _Inexact.error

        def cos_(self) -> None:
            np.cos(self._values, out=self._values)

    monkeypatch.setattr(rows.torch, "from_numpy", _Inexact)
    monkeypatch.setattr(rows, "_LAST_BITS", 2**12)
    for _Inexact.error in (-(2**12), 2**12):
        for ours, theirs in zip(map(normal32_of, hashes), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    _Inexact.error = 2**24  # more than is looked at
    assert any((ours != theirs).any() for ours, theirs in zip(map(normal32_of, hashes), expected, strict=True))
    assert normal32_of(hashes[0][:0]).shape == (0, 50)


def test_captions_are_distinct_and_equally_likely() -> None:
    drawn = [RowDraws(2, step, [0], (Stream.CAPTION,)).captions((Stream.CAPTION,), 10, 4) for step in range(5000)]
    chosen = np.array(drawn).reshape(5000, 4)
    assert all(len(set(row)) == 4 for row in chosen.tolist())
    assert stats.chisquare(np.bincount(chosen.ravel(), minlength=10)).pvalue > 1e-3
