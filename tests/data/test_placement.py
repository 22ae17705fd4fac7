"""Boxes and keypoints move with the crop and the flip, exactly as the pixels do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed.tiny import BASELINES

from stackgan_dist.data.index import load_index
from stackgan_dist.data.placement import SMALLEST, View, check_places, place_from_words, place_in_view
from stackgan_dist.data.shard import ShardReader
from stackgan_dist.errors import UserError
from stackgan_dist.models import Placement
from stackgan_dist.models.config import CUB_PARTS
from stackgan_dist.presets import PAINTED_PARTS

BOX = Placement("box")
WINGS = Placement("keypoints", ("left wing", "right wing", "beak"))
WHOLE = View(0.0, 0.0, 1.0)


def test_a_box_in_a_crop_and_its_mirror_image() -> None:
    meta = {"box": [0.2, 0.3, 0.4, 0.5]}
    np.testing.assert_allclose(place_in_view(meta, BOX, WHOLE), [0.2, 0.3, 0.4, 0.5], rtol=1e-6)
    np.testing.assert_allclose(place_in_view(meta, BOX, View(0.1, 0.2, 0.8)), [0.125, 0.125, 0.5, 0.625], rtol=1e-6)
    np.testing.assert_allclose(
        place_in_view(meta, BOX, View(0.1, 0.2, 0.8, flipped=True)), [0.375, 0.125, 0.5, 0.625], rtol=1e-6
    )


@pytest.mark.parametrize("box", [[0, 0, 1, 1], [0.95, 0.95, 0.05, 0.05], [0.0, 0.0, 0.01, 0.01], [0.5, 0.9, 0.2, 0.1]])
@pytest.mark.parametrize("flipped", [False, True])
def test_what_a_crop_cuts_off_is_cut_off(box: list[float], flipped: bool) -> None:
    left, top, width, height = place_in_view({"box": box}, BOX, View(0.1, 0.1, 0.8, flipped))
    assert min(left, top) >= 0
    assert min(width, height) >= SMALLEST - 1e-7
    assert max(left + width, top + height) <= 1 + 1e-6


def test_a_mirrored_left_wing_is_a_right_wing() -> None:
    meta = {"keypoints": {"left wing": [0.3, 0.4], "beak": [0.05, 0.5], "tail": [0.9, 0.9]}}
    np.testing.assert_allclose(place_in_view(meta, WINGS, WHOLE), [[0.3, 0.4, 1], [0, 0, 0], [0.05, 0.5, 1]], rtol=1e-6)
    # The beak is outside the crop.
    np.testing.assert_allclose(
        place_in_view(meta, WINGS, View(0.1, 0.0, 0.8, flipped=True)), [[0, 0, 0], [0.75, 0.5, 1], [0, 0, 0]], rtol=1e-6
    )


def test_single_pictures_may_lack_their_place_but_not_all() -> None:
    np.testing.assert_array_equal(place_in_view({}, BOX, WHOLE), [0, 0, 1, 1])
    assert not place_in_view({}, WINGS, WHOLE).any()
    check_places([{}, {"box": [0, 0, 1, 1]}], BOX, "s")
    check_places([{}, {"keypoints": {"beak": [0, 0]}}], WINGS, "s")
    with pytest.raises(UserError, match=r"a.tar: none of its pictures has a box"):
        check_places([{}, {"keypoints": {"beak": [0, 0]}}], BOX, "a.tar")
    with pytest.raises(UserError, match="has no keypoints, the model needs one or more of left wing, right wing, beak"):
        check_places([{}], WINGS, "a.tar")
    with pytest.raises(UserError, match=r"has the keypoints feet, the model needs one or more of .*--model.keypoints"):
        check_places([{"keypoints": {"feet": [0, 0]}}], WINGS, "a.tar")


def test_painted_birds_have_boxes_and_all_of_their_parts(packed: Path) -> None:
    for meta in _metas(packed):
        assert set(meta["keypoints"]) == set(PAINTED_PARTS)
        points = place_in_view(meta, BASELINES["gawwn-keypoints"].placement, WHOLE)  # type: ignore[arg-type]
        left, top, width, height = place_in_view(meta, BOX, WHOLE)
        assert (points[:, 2] == 1).all()
        # The parts lie in the box.
        assert points[:, 0].min() > left - 0.02
        assert points[:, 0].max() < left + width + 0.02
        assert points[:, 1].min() > top - 0.02
        assert points[:, 1].max() < top + height + 0.02


def _metas(packed: Path) -> list[dict[str, Any]]:
    folder = packed / "train" / "152"
    index = load_index(str(folder))
    shard = index.shards[0]
    with (folder / shard.name).open("rb") as file:
        reader = ShardReader(file, shard.name, shard.samples)
        return [reader.meta(sample) for sample in range(shard.samples)]


def test_cub_s_parts_are_as_many_as_gawwn_s_maps() -> None:
    assert len(CUB_PARTS) == len(set(CUB_PARTS)) == 15


def test_a_place_in_words() -> None:
    np.testing.assert_allclose(place_from_words(["0.1", ".2", "0.5", "0.6"], BOX), [0.1, 0.2, 0.5, 0.6], rtol=1e-6)
    given = place_from_words(["beak=0.5,0.25", "left wing=0,1"], WINGS)
    np.testing.assert_allclose(given, [[0, 1, 1], [0, 0, 0], [0.5, 0.25, 1]])


@pytest.mark.parametrize(
    ("words", "placement", "message"),
    [
        ([], BOX, "needs LEFT TOP WIDTH HEIGHT"),
        (["0.1", "0.1", "0.5"], BOX, "needs LEFT TOP WIDTH HEIGHT"),
        (["0.1", "0.1", "0", "0.5"], BOX, "needs LEFT TOP WIDTH HEIGHT"),
        (["10", "10", "50", "50"], BOX, "in fractions of the side"),
        (["a", "b", "c", "d"], BOX, "needs LEFT TOP WIDTH HEIGHT"),
        (["nan", "0", "1", "1"], BOX, "needs LEFT TOP WIDTH HEIGHT"),
        ([], WINGS, "needs NAME=X,Y"),
        (["beak"], WINGS, "needs NAME=X,Y"),
        (["beak=1"], WINGS, "needs NAME=X,Y"),
        (["tail=0.5,0.5"], WINGS, "--place names 'tail'; this model knows left wing, right wing, beak"),
    ],
)
def test_words_that_are_no_place(words: list[str], placement: Placement, message: str) -> None:
    with pytest.raises(UserError, match=message):
        place_from_words(words, placement)
