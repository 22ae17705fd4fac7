"""What examples/ extends the package with, from outside of it, as docs/extending.md does."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.importable import ALLOW
from stackgan_dist.pack import __main__ as pack
from stackgan_dist.text import load_encoder
from stackgan_dist.text.own import OwnEncoder

EXAMPLES = Path(__file__).parents[1] / "examples"
LONGEST = 60
"""Lines of an example that shows how to extend the package."""


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def _pack(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pack", *arguments, "--workers", "1"])
    pack.main()


def test_examples_are_short() -> None:
    assert {path.name for path in EXAMPLES.glob("own_*.py")} >= {"own_source.py", "own_encoder.py"}
    for path in EXAMPLES.glob("own_*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST, path.name


def test_own_source_and_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both are packed with by their names, which the index keeps: it takes leave to import what that names."""
    root, out = tmp_path / "mine", tmp_path / "data"
    (root / "scans").mkdir(parents=True)
    lines = []
    for number, place in enumerate(["Rome", "Oslo", "Lima", "Quito"] * 2):
        Image.new("RGB", (20, 20), (30 * number, 100, 200)).save(root / "scans" / f"{number}.jpg")
        lines.append(f"{number}.jpg\t{place}\ta card of {place}, number {number}")
    (root / "cards.tsv").write_text("\n".join(lines))

    own = ["own_source:Cards", "--root", str(root), "--encoder", "own_encoder:LetterPairs", "--out", str(out)]
    _pack(monkeypatch, *own, "--sizes", "16", "--options", "test_share=0.5")
    train, test = (load_index(str(out / split / "16")) for split in ("train", "test"))
    assert (train.samples, test.samples, train.classes, test.classes) == (4, 4, ("Lima", "Oslo"), ("Quito", "Rome"))
    assert (train.name, train.text_encoder, train.text_dim) == ("own", "own_encoder:LetterPairs", 64)
    assert train.recipe["source"] == "own_source:Cards"

    with pytest.raises(UserError, match=rf"the index of the data in {out} names own_encoder:LetterPairs"):
        load_encoder(train.text_encoder, (str(out),))
    monkeypatch.setenv(ALLOW, "own_encoder")
    assert load_encoder(train.text_encoder, (str(out),)).encode(["a card of Oslo"]).shape == (1, 64)

    with pytest.raises(SystemExit):
        _pack(monkeypatch, *own, "--sizes", "16", "--options", "share=0.5", "--overwrite")
    assert "own_source:Cards does not take these options" in capsys.readouterr().err


class _Encoder:
    def __init__(self, dim: int, embeddings: NDArray[np.float32] | Exception) -> None:
        self.dim = dim
        self._embeddings = embeddings

    def encode(self, sentences: list[str]) -> NDArray[np.float32]:
        if isinstance(self._embeddings, Exception):
            raise self._embeddings
        return self._embeddings


@pytest.mark.parametrize(
    ("dim", "embeddings", "message"),
    [
        (0, np.ones((1, 4), np.float32), "has dim 0; it must be a whole number from 1 on"),
        (4, np.ones((1, 3), np.float32), r"made an array of shape \(1, 3\) of 1 sentences; .* it must be \(1, 4\)"),
        (4, np.full((1, 4), 0.5, np.float32), "made an embedding .* mean square of 0.25; it must be 1"),
        (4, np.full((1, 4), np.nan, np.float32), "made an embedding .* mean square of nan"),
        (4, np.zeros((1, 4), np.float32), "made an embedding .* mean square of 0;"),
        (4, KeyError("no vector"), r"failed: KeyError: 'no vector' \("),
    ],
)
def test_what_an_own_encoder_makes_is_checked(
    dim: int, embeddings: NDArray[np.float32] | Exception, message: str
) -> None:
    with pytest.raises(UserError, match=rf"the text encoder my:Encoder {message}"):
        OwnEncoder("my:Encoder", _Encoder(dim, embeddings)).encode(["a sentence"])
