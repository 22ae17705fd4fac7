"""R-precision: the map against numpy's least squares, the matching against what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stackgan_dist.data.captions import Caption
from stackgan_dist.errors import UserError
from stackgan_dist.scores.r_precision import RIDGE, Candidates, TextMap, TextMapSums, as_many_wrong

IDENTITY = TextMap(torch.zeros(8).double(), torch.zeros(8).double(), torch.eye(8).double())


def captions(text: Tensor, names: list[str]) -> list[Caption]:
    return [Caption("", row.numpy(), b"", {"class": name}) for row, name in zip(text, names, strict=True)]


def fitted(features: Tensor, text: Tensor, ranks: int = 1) -> TextMap:
    total = TextMapSums(features.shape[1], text.shape[1])
    for rank in range(ranks):
        part = TextMapSums(features.shape[1], text.shape[1])
        for rows in torch.arange(rank, len(features), ranks).split(7):
            part.add(features[rows], text[rows])
        total.tensor += part.tensor
    return total.solve()


def test_map_equals_numpy_s_ridge_regression() -> None:
    torch.manual_seed(0)
    features = torch.rand(50, 6, dtype=torch.float64) @ torch.rand(6, 6, dtype=torch.float64) + 3
    text = features @ torch.rand(6, 4, dtype=torch.float64) + torch.rand(50, 4, dtype=torch.float64)
    x, t = features.numpy() - features.numpy().mean(0), text.numpy() - text.numpy().mean(0)
    penalty = RIDGE * len(x) * x.var(axis=0).mean()
    # Ridge regression is least squares with a row of its own for the penalty of each direction.
    stacked = np.concatenate([x, np.sqrt(penalty) * np.eye(6)]), np.concatenate([t, np.zeros((6, 4))])
    reference = np.linalg.lstsq(*stacked)[0]
    for ranks in (1, 2, 4):
        found = fitted(features, text, ranks)
        np.testing.assert_allclose(found.weight, reference, rtol=1e-6)
        np.testing.assert_allclose(found.mean, features.mean(0), rtol=1e-12)
        np.testing.assert_allclose(found.text_mean, text.mean(0), rtol=1e-12)


def test_a_picture_matches_its_own_sentence_and_no_other() -> None:
    text = torch.eye(8)
    names = [f"class {n}" for n in range(8)]
    candidates = Candidates(text, names, wrong=7, seed=0)
    assert candidates.matches(IDENTITY, torch.arange(8), text, captions(text, names)).sum() == 8
    assert candidates.matches(IDENTITY, torch.arange(8), text.roll(1, 0), captions(text, names)).sum() == 0


def test_chance_is_one_in_all_sentences() -> None:
    torch.manual_seed(1)
    pool, own, features = torch.randn(40, 8), torch.randn(4000, 8), torch.randn(4000, 8)
    candidates = Candidates(pool, [f"other {n}" for n in range(40)], wrong=9, seed=0)
    found = candidates.matches(IDENTITY, torch.arange(4000), features, captions(own, ["own"] * 4000))
    assert found.mean().item() == pytest.approx(0.1, abs=0.02)


def test_equal_sentences_share_the_match() -> None:
    text = torch.ones(5, 8)
    candidates = Candidates(text, list("abcde"), wrong=4, seed=0)
    found = candidates.matches(IDENTITY, torch.arange(2), text[:2], captions(text[:2], ["own"] * 2))
    assert found.tolist() == pytest.approx([0.2, 0.2])


def test_wrong_sentences_are_of_other_classes_and_chosen_by_number_alone() -> None:
    torch.manual_seed(2)
    pool = torch.randn(60, 8)
    names = ["own"] * 30 + ["other"] * 30
    candidates = Candidates(pool, names, wrong=30, seed=0)
    # The pictures lie on the sentences of their own class in the pool, which are nearer than the one they belong to.
    own = captions(pool[:30] + 0.3 * torch.randn(30, 8), ["own"] * 30)
    assert candidates.matches(IDENTITY, torch.arange(30), pool[:30], own).sum() == 30
    few = Candidates(pool, names, wrong=3, seed=0)
    features = torch.randn(30, 8)
    whole = few.matches(IDENTITY, torch.arange(30), features, own)
    single = [few.matches(IDENTITY, torch.tensor([n]), features[n : n + 1], own[n : n + 1]) for n in range(30)]
    assert torch.equal(torch.cat(single), whole)
    assert 0 < whole.sum() < 30


def test_as_many_wrong_sentences_as_there_are() -> None:
    classes = ["a", "a", "a", "b", "c"]
    assert [as_many_wrong(classes, wanted) for wanted in (1, 2, 99)] == [1, 2, 2]
    Candidates(torch.rand(5, 8), classes, as_many_wrong(classes, 99), seed=0)
    with pytest.raises(UserError, match="found 0: pack pictures of more classes"):
        Candidates(torch.rand(2, 8), ["a", "a"], as_many_wrong(["a", "a"], 99), seed=0)


def test_too_few_sentences_or_pictures_are_user_errors() -> None:
    with pytest.raises(UserError, match="against 4 of other classes, found 2"):
        Candidates(torch.rand(5, 8), ["a", "a", "b", "b", "b"], wrong=4, seed=0)
    with pytest.raises(UserError, match="at least 2 training pictures, found 0"):
        TextMapSums(3, 2).solve()
