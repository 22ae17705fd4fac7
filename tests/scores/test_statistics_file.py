"""Statistics files of pytorch-fid and clean-fid: read as they write them, and nothing else."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stackgan_dist.errors import UserError
from stackgan_dist.scores.frechet import FrechetSums, frechet_distance
from stackgan_dist.scores.statistics_file import read_statistics, statistics_bytes


def written(compressed: bool = False, **arrays: Any) -> bytes:
    content = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(content, **arrays)
    return content.getvalue()


def of(features: torch.Tensor) -> FrechetSums:
    sums = FrechetSums(features.shape[1])
    sums.add(features)
    return sums


FEATURES = torch.rand(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MU, SIGMA = FEATURES.mean(0).numpy(), np.cov(FEATURES.numpy(), rowvar=False)


@pytest.mark.parametrize("names", [("mu", "sigma"), ("m", "s")])
@pytest.mark.parametrize("compressed", [True, False])
def test_what_numpy_says_of_features_is_what_their_sums_say(names: tuple[str, str], compressed: bool) -> None:
    data = written(compressed, **dict(zip(names, (MU, SIGMA), strict=True)))
    found = read_statistics(data, "x.npz", 4, "net")
    other = of(torch.rand(50, 4, dtype=torch.float64))
    assert frechet_distance(other, found) == pytest.approx(frechet_distance(other, of(FEATURES)), rel=1e-9)


def test_what_is_written_is_read_again_and_is_numpy_s_own_covariance() -> None:
    data = statistics_bytes(of(FEATURES))
    with np.load(io.BytesIO(data)) as file:
        np.testing.assert_allclose(file["mu"], MU)
        np.testing.assert_allclose(file["sigma"], SIGMA)
    assert torch.equal(read_statistics(data, "x.npz", 4, "net").covariance, of(FEATURES).moments()[1])


class Harmful:
    """Runs when it is unpickled."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (written(mu=MU, sigma=SIGMA[:3, :3]), r"mean of shape \(4,\) and a covariance of \(3, 3\)"),
        (written(mu=MU[:3], sigma=SIGMA[:3, :3]), "3 features, net has 4: it was made with another network"),
        (written(mean=MU, cov=SIGMA), "holds mean, cov; needed are mu and sigma"),
        (written(mu=MU * np.nan, sigma=SIGMA), "NaN"),
        (written(mu=MU, sigma=np.triu(SIGMA)), "not symmetric"),
        (written(mu=MU, sigma=np.array([Harmful()], dtype=object)), "not a statistics file"),
        (written(mu=MU.astype(int), sigma=SIGMA), "mu holds int64"),
        (written(mu=MU, sigma=SIGMA)[:200], "not a statistics file"),
        (b"", "not a statistics file"),
        (b"no archive", "not a statistics file"),
    ],
)
def test_anything_else_is_refused(data: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        read_statistics(data, "x.npz", 4, "net")
    assert not list(tmp_path.iterdir())


def test_a_bare_array_is_refused() -> None:
    content = io.BytesIO()
    np.save(content, MU)
    with pytest.raises(UserError, match="not a statistics file"):
        read_statistics(content.getvalue(), "x.npy", 4, "net")
