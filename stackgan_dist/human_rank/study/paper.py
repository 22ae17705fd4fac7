"""What people said in the paper (Table 1, "Human rank"): mean rank ± its error, 1 is best."""

from __future__ import annotations

HUMAN_RANK: dict[str, dict[str, tuple[float, float]]] = {
    "cub": {"GAN-INT-CLS": (2.81, 0.03), "GAWWN": (1.99, 0.04), "StackGAN": (1.37, 0.02)},
    "oxford102": {"GAN-INT-CLS": (1.87, 0.03), "StackGAN": (1.13, 0.03)},
    "coco": {"GAN-INT-CLS": (1.89, 0.04), "StackGAN": (1.11, 0.03)},
}
"""Data set -> method -> (mean rank, error). Three methods were ranked on CUB, two on the others."""


def paper_row(data: str) -> str:
    """The paper's line to set beside a study on `data`, and whether it may be compared."""
    known = data in HUMAN_RANK
    name = data if known else "cub"
    row = ", ".join(f"{method} {mean:.2f} ± {error:.2f}" for method, (mean, error) in HUMAN_RANK[name].items())
    if known:
        return f"{row} ({name}, Table 1; 10 raters)"
    return f"{row} (cub, Table 1; other data and methods than here: not comparable, the paper has none on {data!r})"
