"""The contrastive head: what its logits are, and in which precision."""

from __future__ import annotations

import math

import torch

from stackgan_dist.models.contrastive import ContrastiveHead

TEXT_DIM = 6


def test_the_scale_of_the_cosines_has_a_limit_and_a_start() -> None:
    head = ContrastiveHead(8, TEXT_DIM)
    given = torch.rand(3, 2, 2, 2), torch.rand(3, TEXT_DIM), torch.rand(4, TEXT_DIM)
    logits = head(*given)
    assert logits.shape == (3, 5)
    head.log_scale.data.fill_(0.0)
    torch.testing.assert_close(logits, 10 * head(*given))
    head.log_scale.data.fill_(math.log(1000.0))
    torch.testing.assert_close(head(*given), 3 * logits)


def test_the_same_text_in_the_pool_is_as_near_as_the_own_one() -> None:
    head, text = ContrastiveHead(8, TEXT_DIM), torch.rand(3, TEXT_DIM)
    logits = head(torch.rand(3, 2, 2, 2), text, text)
    torch.testing.assert_close(logits[:, 0], logits[:, 1:].diagonal())


def test_autocast_does_not_round_it() -> None:
    head = ContrastiveHead(8, TEXT_DIM)
    features, text, pool = torch.rand(3, 2, 2, 2).bfloat16(), torch.rand(3, TEXT_DIM), torch.rand(4, TEXT_DIM)
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features, text, pool)
    assert logits.dtype == torch.float32
    assert torch.equal(logits, head(features, text, pool))
