"""What the paper (arXiv 1612.03242) says in Tables 1 and 2, and what its numbers were made with.

The table of terms is of this project; no number of the paper stands beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Table = Literal["table1", "table2", "terms"]
Published = tuple[float, float]
"""Inception Score and its deviation over the splits."""

SAMPLES, SPLITS = 30_000, 10
CLASSIFIER = "an Inception-v3 fine-tuned on the test classes, which is lost"
TEXT_ENCODER = "char-CNN-RNN"

TABLE1: dict[str, dict[str, Published]] = {
    "cub": {"GAN-INT-CLS": (2.88, 0.04), "GAWWN": (3.62, 0.07), "StackGAN": (3.70, 0.04)},
    "oxford102": {"GAN-INT-CLS": (2.66, 0.03), "StackGAN": (3.20, 0.01)},
    "coco": {"GAN-INT-CLS": (7.88, 0.07), "StackGAN": (8.45, 0.03)},
}
"""Data set -> method -> Inception Score. The paper has one number for GAWWN, which is given places that flowers and
COCO's pictures do not have."""

TABLE2: dict[str, Published] = {
    "ablation-stage1-64-no-ca": (2.66, 0.03),
    "ablation-stage1-64": (2.95, 0.02),
    "ablation-stage1-256-no-ca": (2.48, 0.00),
    "ablation-stage1-256": (3.02, 0.01),
    "ablation-stackgan-128-text-once": (3.13, 0.03),
    "ablation-stackgan-128-no-ca": (3.20, 0.03),
    "ablation-stackgan-128": (3.35, 0.02),
    "ablation-stackgan-256-text-once": (3.45, 0.02),
    "ablation-stackgan-256-no-ca": (3.31, 0.03),
    "ablation-stackgan-256": (3.70, 0.04),
}
"""Preset -> Inception Score, all on CUB."""


@dataclass(frozen=True)
class Pictures:
    """How many pictures a data set has."""

    train: int
    test: int


PICTURES = {"cub": Pictures(8_855, 2_933), "oxford102": Pictures(7_034, 1_155)}
"""The paper's splits, whose classes are disjoint."""


def paper_data(table: Table, data: str) -> str:
    """The data set whose numbers of the paper stand beside those on `data`: its own, or CUB, which all rows have."""
    return data if table == "table1" and data in TABLE1 else "cub"


def paper_widths(data: str, presets: str) -> str:
    """Widths of G / D behind the paper's numbers on `data`; `presets` are those on CUB."""
    return "192 / 96" if data == "coco" else presets


def paper_budget(data: str) -> str:
    """How long each network behind the paper's numbers on `data` was trained."""
    return "120 epochs" if data == "coco" else "600 epochs in batches of 64 (GAWWN of 16)"
