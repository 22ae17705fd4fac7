"""The share of pictures that a classifier of a set's own classes calls what their sentences are about."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from scores.one_rank import ALONE
from small_classifier import small_classifier

from stackgan_dist.classifiers.classifier import load_classifier
from stackgan_dist.scores.judges import Judges
from stackgan_dist.scores.picture_sums import PictureSums
from stackgan_dist.scores.screen import as_text


@dataclass
class Said:
    sentence: str
    class_name: str


@pytest.mark.parametrize("known", [True, False])
def test_it_is_counted_among_the_pictures_whose_class_is_known(known: bool) -> None:
    with small_classifier():
        network = load_classifier("efficientnet-lite0")
    names = [f"kind {number}" for number in range(network.classes)]
    details = {"fine_tuned": {"classes": names if known else names[1:]}}  # another file's record is no use
    judges = Judges(dataclasses.replace(network, details=details))
    images = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    seen = network.logits(images).argmax(1).tolist()
    wanted = [*seen[:3], (seen[3] + 1) % network.classes, (seen[4] + 1) % network.classes]
    said = [Said("a bird", names[label]) for label in wanted] + [Said("a bird", "unheard of")]
    sums = PictureSums(judges, 6, 2, 6)
    sums.add(torch.tensor([5, 4, 3]), images[[5, 4, 3]], [said[5], said[4], said[3]])
    sums.add(torch.tensor([0, 1, 2]), images[:3], said[:3])
    sums.merge(ALONE)
    assert sums.class_matches.tolist() == ([1, 1, 1, 0, 0] if known else [])


def test_its_line_says_chance_and_real_pictures() -> None:
    row = {
        "score": "class agreement", "share": 0.31, "interval": [0.25, 0.37], "share_of_real_pictures": 0.9,
        "pictures": 200, "chance": 0.05, "notes": [], "weights_sha256": "", "classifier": "c", "comparable_with": "",
    }  # fmt: skip
    assert "class agreement    31.0% [25.0%, 37.0%] (real pictures 90.0%, chance 5.0%; 200 pictures)" in as_text([row])
