"""The paper's encoder learns: captions that differ in one word come to find the pictures that the word is about."""

from __future__ import annotations

import numpy as np
import torch

from stackgan_dist.distributed.process_group import process_group
from stackgan_dist.text.char_cnn_rnn import CharCNNRNNEncoder, spell
from stackgan_dist.train_text_encoder.batches import ClassBatches
from stackgan_dist.train_text_encoder.retrieval import retrieval
from stackgan_dist.train_text_encoder.training import EncoderTraining, Learning

COLOURS = ("red", "yellow", "white", "purple", "orange", "pink", "blue", "green")
PHRASES = ("this flower has {} petals", "a {} blossom with thin petals", "the petals are {}", "large and {} flower")
STEPS = 120


def test_captions_come_to_find_their_pictures() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(COLOURS)), 10)
    features = np.eye(len(COLOURS))[labels] + generator.normal(0, 0.2, (len(labels), len(COLOURS)))
    phrases = [[phrase.format(COLOURS[label]) for phrase in PHRASES] for label in labels]
    texts = torch.from_numpy(np.stack([spell(each) for each in phrases]))
    # Of each colour the last pictures are not trained on.
    trained = np.tile(np.arange(10) < 7, len(COLOURS))
    with process_group(60) as ranks:
        recipe = EncoderTraining(
            steps=STEPS, batch_size=8, width=32, dim=16, learning_rate=1e-2, last_learning_rate=0.1
        )
        batches = ClassBatches(labels[trained], 1, len(PHRASES), recipe.batch_size, recipe.seed)
        known = torch.from_numpy(features[trained]).float().unsqueeze(1)
        learning = Learning(recipe, batches, known, texts[trained], False, ranks)
        for step in range(STEPS):
            learning.step(step, False)
    encoder = CharCNNRNNEncoder(learning.network.text, "x")
    unseen = [sentence for each, seen in zip(phrases, trained, strict=True) if not seen for sentence in each]
    told = encoder.encode(unseen).reshape(-1, len(PHRASES), encoder.dim)
    with torch.inference_mode():
        images = learning.network.map_images(torch.from_numpy(features[~trained])).numpy()
    found = retrieval(images, labels[~trained], told)
    assert found.classification > 0.9
    assert found.r_at_1 > 0.9
    assert found.r_at_1_chance == 1 / 8
