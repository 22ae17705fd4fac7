"""Sample grids: what their columns show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed.tiny import tiny_model
from PIL import Image

from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.pictures import RealPictures
from stackgan_dist.models import ModelConfig, build_generator
from stackgan_dist.train import samples


@pytest.mark.parametrize("model", [tiny_model(), tiny_model(stage=2, image_size=128)], ids=["stage1", "stage2"])
def test_the_real_column_is_the_middle_that_scores_see(
    packed: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_packed(DataConfig(url=str(packed)), model.image_size)
    known = {
        image.numpy().tobytes(): None
        for batch in RealPictures(data.captions(), model.image_size, 8, 0).batches(0, 1)
        for image in ((batch.images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    }
    shown: list[Any] = []
    grid = samples.labelled_grid

    def watched(rows: Any, labels: Any, headings: Any, cell: int) -> Image.Image:
        shown.append((rows, headings))
        return grid(rows, labels, headings, cell)

    monkeypatch.setattr(samples, "labelled_grid", watched)
    drawn = samples.FixedSamples(data.captions(), 3, model, 0)
    generator = build_generator(model, data.index.text_dim, tiny_model() if model.stage == 2 else None)
    drawn.draw({"ema": generator})
    ((rows, headings),) = shown
    assert headings == (["stage-I"] if model.stage == 2 else []) + ["ema", "real"]
    assert len(rows) == 3
    for row in rows:
        assert row[-1].size == row[-2].size == (model.image_size, model.image_size)
        assert np.asarray(row[-1]).tobytes() in known
