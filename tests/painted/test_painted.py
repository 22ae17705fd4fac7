"""Painted birds: balanced, reproducible, honestly captioned and drawn where the record says."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections import Counter

import numpy as np
import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources import Record, open_source
from stackgan_dist.pack.sources.painted import PaintedBirds
from stackgan_dist.painted.captions import named_colours
from stackgan_dist.painted.drawing import SCENES
from stackgan_dist.painted.species import BACKGROUNDS, BEAK_SHAPES, LIKE_THE_BACK, PALETTE, PARTS, SIZES, all_species


@pytest.fixture(scope="module")
def birds() -> PaintedBirds:
    return PaintedBirds()


@pytest.fixture(scope="module")
def records(birds: PaintedBirds) -> list[Record]:
    return [*birds.records("train"), *birds.records("test")]


def test_the_splits_share_no_species_and_no_key(birds: PaintedBirds) -> None:
    train, test = birds.records("train"), birds.records("test")
    assert (len(train), len(test)) == (2400, 480)
    assert len({record.class_name for record in train}) == 200
    assert len({record.class_name for record in test}) == 40
    assert not {record.class_name for record in train} & {record.class_name for record in test}
    keys = [record.key for record in (*train, *test)]
    assert len(set(keys)) == len(keys)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys)


@pytest.mark.parametrize("seed", [0, 7])
def test_every_colour_is_equally_frequent(seed: int) -> None:
    species = all_species(seed)
    for chosen, share in ((species[:200], 20), (species[200:], 4)):
        for part in ("back", "beak"):
            assert Counter(one.colours[part] for one in chosen) == dict.fromkeys(PALETTE, share)
    assert Counter((one.beak_shape, one.size) for one in species) == {
        (shape, size): 40 for shape in BEAK_SHAPES for size in SIZES
    }
    for part in PARTS[1:]:
        like_the_back = sum(one.colours["back"] == one.colours[part] for one in species)
        expected = LIKE_THE_BACK.get(part, 0.0) * len(species)
        assert abs(like_the_back - expected) <= 0.3 * expected
    assert len({one.name.partition(".")[2] for one in species}) == len(species)


def test_backgrounds_vary_within_a_species(records: list[Record]) -> None:
    backgrounds: dict[str, list[str]] = {}
    for record in records:
        backgrounds.setdefault(record.class_name, []).append(record.attributes["background"])
    assert all(Counter(drawn).keys() == set(BACKGROUNDS) for drawn in backgrounds.values())


def test_the_parser_inverts_every_caption(records: list[Record]) -> None:
    for record in records:
        assert len(record.captions) == 10
        union: dict[str, str] = {}
        for caption in record.captions:
            named = named_colours(caption)
            assert named.items() <= record.attributes.items(), caption
            assert sum(len(re.findall(rf"\b{colour}\b", caption)) for colour in PALETTE) == len(named), caption
            assert "back" in named, caption
            union |= named
        assert set(union) == set(PARTS)
        words = " ".join(record.captions).split()
        assert record.attributes["size"] in words
        assert record.attributes["beak_shape"] in words


def test_captions_are_english_and_varied(records: list[Record]) -> None:
    captions = [caption for record in records for caption in record.captions]
    assert not [c for c in captions if re.search(r"\ba [aeiou]|\ban [^aeiou]|  | ,|,$", c)]
    assert not [c for c in captions if re.search(r"\ba \w+ wings|wings is|(beak|bill|belly|crown|cap) are", c)]
    assert len(set(captions)) > 0.8 * len(captions)
    assert np.mean([len(named_colours(c)) for c in captions]) > 3


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("A small blue bird with a short, orange beak.", {"back": "blue", "beak": "orange"}),
        ("this bird has a belly that is yellow and its wings are white", {"belly": "yellow", "wing": "white"}),
        ("the crown of this bird is red", {"crown": "red"}),
        ("a bird on an orange branch", {}),
    ],
)
def test_the_parser_reads_what_people_type(caption: str, named: dict[str, str]) -> None:
    assert named_colours(caption) == named


def test_box_and_keypoints_lie_in_the_picture_and_sizes_differ(records: list[Record]) -> None:
    width: dict[str, list[float]] = {"small": [], "large": []}
    for record in records:
        assert record.box is not None
        left, top, w, h = record.box
        assert left >= 0
        assert top >= 0
        assert left + w <= 304
        assert top + h <= 304
        for x, y in record.keypoints.values():
            assert left - 1 <= x <= left + w + 1
            assert top - 1 <= y <= top + h + 1
        width[record.attributes["size"]].append(w / 304)
    assert np.min(width["small"]) > 0.55
    assert np.mean(width["small"]) + 0.08 < np.mean(width["large"]) < 0.8
    assert {name for record in records for name in record.keypoints} >= {
        "crown", "eye", "beak", "wing", "belly", "back", "tail", "feet", "breast", "neck",
    }  # fmt: skip


def test_parts_are_painted_in_their_colours_where_the_keypoints_say(birds: PaintedBirds, records: list[Record]) -> None:
    for record in records[::97]:
        picture = birds.picture(record)
        assert (picture.mode, picture.size) == ("RGB", (304, 304))
        pixels = np.asarray(picture, np.float64)
        for part in ("crown", "wing", "belly"):
            x, y = (round(value) for value in record.keypoints[part])
            patch = np.median(pixels[y - 3 : y + 4, x - 3 : x + 4].reshape(-1, 3), axis=0)
            distance = {name: np.abs(patch - rgb).sum() for name, rgb in PALETTE.items()}
            assert min(distance, key=distance.__getitem__) == record.attributes[part], (record.key, part)


def test_backgrounds_are_greyish_and_unlike_any_part() -> None:
    for scene in SCENES.values():
        for colour in scene:
            assert max(colour) - min(colour) <= 48
            assert all(np.abs(np.subtract(colour, rgb)).sum() > 90 for rgb in PALETTE.values())


def test_a_picture_does_not_depend_on_who_draws_it_or_when(birds: PaintedBirds) -> None:
    again: PaintedBirds = pickle.loads(pickle.dumps(PaintedBirds()))
    first, last = again.records("train")[0], again.records("test")[-1]
    pixels = again.picture(last).tobytes()
    again.picture(first)
    assert birds.picture(last).tobytes() == pixels == again.picture(last).tobytes()
    assert PaintedBirds(seed=1).picture(last).tobytes() != pixels


def test_the_records_of_a_seed_never_change(records: list[Record]) -> None:
    digest = hashlib.sha256(repr([(r.key, r.class_name, r.captions) for r in records]).encode()).hexdigest()
    assert digest[:16] == "ee0c696e9b2d6b31"


def test_more_pictures_keep_the_ones_there_were(birds: PaintedBirds) -> None:
    more = {record.key: record for record in PaintedBirds(pictures=3120).records("test")}
    assert len(more) == 520
    assert all(more[record.key] == record for record in birds.records("test"))


def test_mistakes_are_explained() -> None:
    assert isinstance(open_source("painted", None, {"seed": 3, "pictures": 240}), PaintedBirds)
    with pytest.raises(UserError, match="240 species"):
        PaintedBirds(pictures=100)
    with pytest.raises(UserError, match="leave it out"):
        PaintedBirds("/data/birds")
    with pytest.raises(UserError, match="non-negative"):
        PaintedBirds(seed=-1)
    with pytest.raises(UserError, match="train and test"):
        PaintedBirds().records("val")
    with pytest.raises(UserError, match="not the key"):
        PaintedBirds().picture(Record(key="other-1", captions=("a bird",), class_name="bird"))
