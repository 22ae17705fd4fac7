"""Joint embeddings that test_joint_embedding.py starts on several ranks, on made-up pictures and captions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from distributed.trainings import StopAfter

from stackgan_dist.distributed.process_group import Ranks, process_group
from stackgan_dist.distributed.stop import StopRequest
from stackgan_dist.runs.folder import RunFolder
from stackgan_dist.runs.keeper import WritePolicy
from stackgan_dist.text.char_cnn_rnn import spell
from stackgan_dist.train_text_encoder.batches import ClassBatches
from stackgan_dist.train_text_encoder.training import EncoderIdentity, Learning, Recipe, learn

BATCH = 7
"""Three ranks get 2, 2 and 3 rows of it."""
STEPS = 8
STOPS_AT = 4
# Of a gradient that is zero but for rounding Adam makes learning rate / 1e-8, hence a small rate.
RECIPE = Recipe(steps=STEPS, batch_size=BATCH, learning_rate=1e-3, dropout=0.25, width=16, dim=12, precision="fp64")
WORDS = ("red", "white", "small", "yellow", "with", "petals", "a", "flower", "stamen", "round")


def train(out: Path, name: str, recipe: Recipe, ranks: Ranks, stop: StopRequest, frozen: bool = False) -> None:
    """A training of 30 pictures of 10 classes, 2 views and 3 captions each."""
    random = np.random.default_rng(0)
    labels = np.arange(30) % 10
    features = torch.from_numpy(random.normal(size=(30, 2, 20)) + labels[:, None, None])
    sentences = [" ".join(random.choice(WORDS, size=6)) for _ in range(90)]
    texts = torch.from_numpy(spell(sentences)).reshape(30, 3, -1)
    if frozen:
        texts = torch.from_numpy(random.normal(size=(30, 3, 12)))
    learning = Learning(recipe, ClassBatches(labels, 2, 3, BATCH, recipe.seed), features, texts, frozen, ranks)
    folder = RunFolder(out / name)
    if ranks.is_main:
        folder.path.mkdir(parents=True, exist_ok=True)
    learn(learning, WritePolicy(2, 100, 9), EncoderIdentity.of(recipe), name, folder, ranks, stop)


def main(out: Path) -> None:
    """All of them."""
    with process_group(60) as ranks:
        train(out, "exact", RECIPE, ranks, StopRequest())
        train(out, "frozen", RECIPE, ranks, StopRequest(), frozen=True)
        single = dataclasses.replace(RECIPE, precision="fp32")
        train(out, "unbroken", single, ranks, StopRequest())
        train(out, "broken", single, ranks, StopAfter(STOPS_AT, ranks.is_main))
        train(out, "broken", single, ranks, StopRequest())
