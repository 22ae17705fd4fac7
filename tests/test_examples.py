"""What examples/ extends the package with, from outside of it, as docs/extending.md does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distributed.tiny import TINY_FLAGS, train_alone
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from stackgan_dist.cli.config_source import parse
from stackgan_dist.config import Config, differences
from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.importable import ALLOW
from stackgan_dist.models import Fakes, ModelConfig
from stackgan_dist.pack import __main__ as pack
from stackgan_dist.runs.trained import load_discriminator, load_trained
from stackgan_dist.text import load_encoder
from stackgan_dist.text.own import OwnEncoder
from stackgan_dist.train.networks import check_networks

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path.append(str(EXAMPLES))

from own_family import Tiny, TinyGenerator  # noqa: E402  # what it is tested with lies beside the package

LONGEST = 60
"""Lines of an example that shows how to extend the package."""


@pytest.fixture(autouse=True)
def _examples_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def _pack(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["pack", *arguments, "--workers", "1"])
    pack.main()


def test_examples_are_short() -> None:
    assert {path.name for path in EXAMPLES.glob("own_*.py")} >= {
        f"own_{part}.py" for part in ("source", "encoder", "family", "loss")
    }
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

    with pytest.raises(SystemExit):
        _pack(monkeypatch, "own_source:Cards", "--root", str(tmp_path / "cards"), "--out", str(out))
    assert f"error: there is no {tmp_path}/cards/cards.tsv; --root must hold it" in capsys.readouterr().err

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


OWN = ["--model.family", "own_family:Tiny", "--model.options", "layers=2"]


def _config(packed: Path, folder: Path, *flags: str) -> Config:
    run = ["--data.url", str(packed), "--run.folder", str(folder), "--training.epochs", "10"]
    return parse([*TINY_FLAGS, *run, *flags])


def test_an_own_family_is_trained_and_generates(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifty steps; afterwards its checkpoint causes no import unasked."""
    config = _config(packed, tmp_path, *OWN, "--training.loss", "own_loss:LeastSquares")
    check_networks(config, 256)
    run = train_alone(config, None)
    trained = load_trained(run, lambda _: None)
    assert (trained.step, trained.config.own_parts) == (50, ["own_family:Tiny", "own_loss:LeastSquares"])
    assert trained.config.model.options == ("layers=2",)
    assert differences(config, trained.config) == []
    for use in (trained.generator, lambda device: load_discriminator(trained, device)):
        with pytest.raises(UserError, match=f"the checkpoint {run}.*own_family:Tiny"):
            use(torch.device("cpu"))
        with monkeypatch.context() as patch:
            patch.setenv(ALLOW, "own_family:Tiny")
            use(torch.device("cpu"))
    monkeypatch.setenv(ALLOW, "own_family:Tiny")
    generator = trained.generator(torch.device("cpu"))
    text, z, eps = torch.randn(2, 256), torch.randn(2, 4), torch.zeros(2, 1, 4)
    assert generator(text, z, eps).image.shape == (2, 3, 64, 64)
    with pytest.raises(UserError, match=r"--config .* names own_loss:LeastSquares"):
        parse(["--config", str(run / "config.json")])
    monkeypatch.setenv(ALLOW, "own_family,own_loss")
    assert parse(["--config", str(run / "config.json")]).own_parts == config.own_parts


class _Silent(TinyGenerator):
    def forward(self, text: Tensor, z: Tensor, eps: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(text, z, eps).image


class _Small(TinyGenerator):
    def forward(self, text: Tensor, z: Tensor, eps: Tensor) -> Fakes:
        return super().forward(text[:1], z[:1], eps)


class _Failing(TinyGenerator):
    def forward(self, text: Tensor, z: Tensor, eps: Tensor) -> Fakes:
        raise KeyError("no text")


class Faulty(Tiny):
    """What is wrong with it is set by the tests."""

    makes: Any = None

    def generator(self, config: ModelConfig, text_dim: int) -> Any:
        return self.makes(config, text_dim, 1)


@pytest.mark.parametrize(
    ("makes", "message"),
    [
        (_Silent, r"tried on two rows: the generator returned a Tensor; it must be Fakes"),
        (_Small, r"Fakes.image is of shape \(1, 3, 64, 64\); it must be \(2, 3, 64, 64\)"),
        (_Failing, r"failed when tried on two rows: KeyError: 'no text' \(.*test_examples.py:\d+\)"),
        (lambda *_: torch.nn.Linear(1, 1), r"generator made a Linear; it must be a Generator"),
        (lambda *_: 1 / 0, r"cannot make its generator: ZeroDivisionError"),
    ],
)
def test_a_faulty_family_is_refused_before_it_trains(monkeypatch: pytest.MonkeyPatch, makes: Any, message: str) -> None:
    monkeypatch.setattr(Faulty, "makes", staticmethod(makes))
    config = Config(model=ModelConfig(family=f"{__name__}:Faulty", generator_width=2, discriminator_width=2))
    with pytest.raises(UserError, match=message):
        check_networks(config, 5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.family", "df_gan"], "--model.family is 'df_gan', it must be one of stackgan, .* or your own"),
        (["--model.options", "layers=2"], "options are for families of your own, this is stackgan"),
        ([*OWN, "--model.stage", "2"], "stage is 2, but it is StackGAN's and own_family:Tiny has none"),
    ],
)
def test_what_no_family_can_be_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--training.loss", "hing"], "it must be one of non-saturating, hinge, matching-aware-hinge, or your own"),
        ([*OWN, "--training.reading-weight", "1"], "the term is StackGAN's and own_family:Tiny has none"),
    ],
)
def test_what_no_run_can_have_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(flags).validate(1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([*OWN[:3], "depth=2"], r"--model.family own_family:Tiny does not take these options: .*Tiny\(layers"),
        (["--training.loss", "matching-aware-hinge"], "the discriminator of stage-I has batch normalisation"),
        (
            ["--model.family", "df-gan", "--training.compile"],
            "--training.compile cannot differentiate twice",
        ),
        (
            ["--training.loss", "own_family:Tiny"],
            "--training.loss own_family:Tiny lacks penalty; a class of AdversarialLoss has discriminator",
        ),
    ],
)
def test_what_cannot_be_built_is_refused(flags: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_networks(parse([*TINY_FLAGS, *flags]), 5)


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
