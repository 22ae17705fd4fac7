"""Measurements that are kept, and pictures of noise."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stackgan_dist.data.pictures import noise_pictures
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import UserError
from stackgan_dist.runs.cached import cached_or_made

ALONE = Ranks(0, 1, torch.device("cpu"), None)


def test_it_is_made_once_for_an_identity_and_a_damaged_file_is_made_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    def make() -> dict[str, torch.Tensor]:
        made.append(1)
        return {"sum": torch.tensor([float(len(made))], dtype=torch.float64)}

    def value(folder: Path | None, **identity: object) -> float:
        return cached_or_made(None if folder is None else str(folder), identity, make, ALONE)["sum"].item()

    assert [value(tmp_path, a=1), value(tmp_path, a=1), value(tmp_path, a=2), value(tmp_path, a=1)] == [1, 1, 2, 1]
    assert value(None, a=1) == 3
    for file in tmp_path.glob("*.pt"):
        file.write_bytes(file.read_bytes()[:50])
    assert value(tmp_path, a=1) == 4
    assert "made again" in capsys.readouterr().out
    assert value(tmp_path, a=1) == 4
    for file in tmp_path.glob("*.pt"):  # a number that torch reads as well as any other
        data = bytearray(file.read_bytes())
        at = data.index(torch.tensor([4.0], dtype=torch.float64).numpy().tobytes()) if b"\x10@" in data else -1
        if at >= 0:
            data[at + 6] ^= 1
            file.write_bytes(data)
    assert value(tmp_path, a=1) == 5
    assert "is damaged" in capsys.readouterr().out
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        value(tmp_path / "file", a=1)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_noise_is_uniform_and_the_same_on_any_ranks(ranks: int) -> None:
    batches = [batch for rank in range(ranks) for batch in noise_pictures(10, 8, 3, 0, rank, ranks)]
    numbers = torch.cat([batch.numbers for batch in batches])
    images = torch.cat([batch.images for batch in batches])[numbers.argsort()]
    assert sorted(numbers.tolist()) == list(range(10))
    (whole,) = noise_pictures(10, 8, 10, 0, 0, 1)
    assert torch.equal(images, whole.images)
    assert images.shape == (10, 3, 8, 8)
    assert -1 <= images.min() < -0.99
    assert 0.99 < images.max() <= 1
    assert images.std() == pytest.approx(3**-0.5, rel=0.05)
    assert len({tuple(image.flatten().tolist()) for image in images}) == 10
