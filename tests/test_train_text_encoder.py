"""The front door that trains text encoders, and what their file is good for: packing, training, new sentences."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from stackgan_dist.cli.doors import command_main
from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.data.index import load_index
from stackgan_dist.errors import UserError
from stackgan_dist.text import load_encoder
from stackgan_dist.text.files import name_of
from stackgan_dist.train_text_encoder import contents

TINY = [
    "--image-size", 64, "--views", 1, "--recipe.width", 16, "--recipe.dim", 24, "--recipe.steps", 4,
    "--recipe.batch-size", 5, "--recipe.learning-rate", 1e-2,
]  # fmt: skip
MODEL = [
    "--model.generator-width", 4, "--model.discriminator-width", 4, "--model.condition-dim", 4, "--model.noise-dim", 4,
    "--training.batch-size", 8, "--training.epochs", 1, "--run.sample-captions", 1, "--data.workers", 0,
]  # fmt: skip


def _door(patch: pytest.MonkeyPatch, module: str, *arguments: object) -> None:
    patch.setattr("sys.argv", [module, *map(str, arguments)])
    command_main(module).__wrapped__()


@pytest.fixture(scope="module")
def encoders(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained encoder, `tiny`, and the features of the pictures."""
    folder = tmp_path_factory.mktemp("encoders")
    with pytest.MonkeyPatch.context() as patch:
        _door(patch, "train_text_encoder", "--data", packed, *TINY, "--run.folder", folder, "--run.name", "tiny")
    return folder


@pytest.fixture(scope="module")
def encoded(encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of painted birds packed with it."""
    folder = tmp_path_factory.mktemp("encoded") / "painted"
    with pytest.MonkeyPatch.context() as patch:
        _door(
            patch, "pack", "painted", "--out", folder, "--sizes", 76, "--limit", 20, "--workers", 1,
            "--encoder", encoders / "tiny",
        )  # fmt: skip
    return folder


def test_it_leaves_an_encoder_and_what_it_retrieves(encoders: Path, packed: Path) -> None:
    record = json.loads((encoders / "tiny" / "retrieval.json").read_text())
    assert record["encoder"] == name_of((encoders / "tiny" / "text_encoder.pt").read_bytes())
    assert record["dim"] == 24
    assert record["test_classes_trained_on"] == 0
    assert 0 <= record["retrieval"]["ap_at_50"] <= 1
    assert (encoders / "tiny" / "DONE").exists()
    assert [json.loads(line)["step"] for line in (encoders / "tiny" / "metrics.jsonl").read_text().splitlines()] == [4]


def test_pictures_are_looked_at_once_and_any_encoder_is_measured(
    encoders: Path, packed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contents, "LabelledPictures", None)
    common = ["--data", packed, *TINY, "--run.folder", encoders]
    _door(monkeypatch, "train_text_encoder", *common, "--encoder", "ngrams")
    output = capsys.readouterr().out
    assert "ngrams on" in output
    assert "AP@50" in output
    assert not (encoders / "painted-ngrams" / "text_encoder.pt").exists()
    # a finished one is evaluated again, and says the same
    before = json.loads((encoders / "tiny" / "retrieval.json").read_text())
    _door(monkeypatch, "train_text_encoder", *common, "--run.name", "tiny", "--evaluate")
    after = json.loads((encoders / "tiny" / "retrieval.json").read_text())
    assert (after["encoder"], after["retrieval"]) == (before["encoder"], before["retrieval"])


def test_the_command_that_it_suggests_packs_with_the_encoder(
    encoders: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "painted"
    data.symlink_to(packed)  # the command writes beside the set
    common = ["--data", data, *TINY, "--run.folder", encoders]
    _door(monkeypatch, "train_text_encoder", *common, "--run.name", "tiny", "--evaluate")
    words = shlex.split(capsys.readouterr().out.partition("python -m stackgan_dist.pack ")[2].partition("\n")[0])
    _door(monkeypatch, "pack", *words, "--limit", 20, "--workers", 1)
    name = name_of((encoders / "tiny" / "text_encoder.pt").read_bytes())
    for split in ("train", "test"):
        assert load_index(f"{data}-{name}/{split}/76").text_encoder == name


def test_new_sentences_find_the_encoder_beside_the_run(
    encoded: Path, encoders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = open_packed(DataConfig(url=str(encoded)), 64).index
    assert index.text_encoder == load_encoder(str(encoders / "tiny")).name
    assert index.text_dim == 24
    data = tmp_path / "painted"
    shutil.copytree(encoded, data)
    _door(monkeypatch, "train", *MODEL, "--data.url", data, "--run.folder", tmp_path, "--run.name", "run")
    shutil.rmtree(data)
    _door(monkeypatch, "generate", "--run", tmp_path / "run", "--count", 1, "a red bird that no index knows")
    assert (tmp_path / "run" / "generated" / "0001-a-red-bird-that-no-index-knows" / "000-000.png").exists()
    # another file under its name is refused
    file = tmp_path / "run" / f"{index.text_encoder}.pt"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="was altered or damaged"):
        _door(monkeypatch, "generate", "--run", tmp_path / "run", "a red bird")


def test_an_encoder_other_than_the_index_s_is_refused(
    encoded: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = ["painted", "--out", encoded, "--sizes", 76, "--limit", 20, "--workers", 1, "--encoder"]
    with pytest.raises(UserError, match=r"text_encoder: 'char-cnn-rnn-[0-9a-f]+' there, 'ngrams' asked for"):
        _door(monkeypatch, "pack", *again, "ngrams")
    lost = tmp_path / "painted"
    shutil.copytree(encoded, lost)
    for file in lost.glob("char-cnn-rnn-*.pt"):
        file.unlink()
    with pytest.raises(UserError, match="is not there: looked for char-cnn-rnn-"):
        _door(monkeypatch, "train", *MODEL, "--data.url", lost, "--run.folder", tmp_path, "--run.name", "lost")
    assert not (tmp_path / "lost").exists()


def test_resharding_takes_the_encoder_along(encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _door(monkeypatch, "pack", "reshard", encoded, "--out", tmp_path / "new", "--shards", 2, "--workers", 1)
    name = open_packed(DataConfig(url=str(tmp_path / "new")), 64).index.text_encoder
    assert load_encoder(name, (str(tmp_path / "new"),)).name == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe.steps", 0], "--recipe.steps is 0"),
        (["--recipe.batch-size", 1], "--recipe.batch-size is 1"),
        (["--recipe.width", 10], "--recipe.width is 10"),
        (["--recipe.dropout", 1], "--recipe.dropout is 1"),
        (["--recipe.seed", -1], "--recipe.seed is -1"),
        (["--views", 0], "--views is 0"),
        (["--run.checkpoint-steps", 0], "--run.checkpoint-steps is 0"),
        (["--run.folder", "https://host/x"], "can only be read"),
        (["--encoder", "word2vec"], "unknown text encoder 'word2vec'"),
        (["--encoder", "published"], "published without an encoder"),
        (["--classifier", "resnet"], "neither a known name"),
        (["--image-size", 256], "--sizes 304"),
    ],
)
def test_wrong_options_are_user_errors(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _door(monkeypatch, "train_text_encoder", "--data", packed, *TINY, "--run.folder", tmp_path, *arguments)


def test_other_options_do_not_go_on_with_a_training(
    encoders: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--data", packed, *TINY, "--run.folder", encoders]
    with pytest.raises(UserError, match=r"another configuration \(learning_rate: 0.5 here, 0.01 there\)"):
        _door(monkeypatch, "train_text_encoder", *common, "--run.name", "tiny", "--recipe.learning-rate", 0.5)
    with pytest.raises(UserError, match="has no checkpoint to evaluate"):
        _door(monkeypatch, "train_text_encoder", *common, "--run.name", "none", "--evaluate")


def test_a_set_without_classes_is_refused(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(packed, tmp_path / "set")
    for file in (tmp_path / "set").glob("*/*/index.json"):
        file.write_text(json.dumps({**json.loads(file.read_text()), "classes": []}))
    with pytest.raises(UserError, match="tells classes apart"):
        _door(monkeypatch, "train_text_encoder", "--data", tmp_path / "set", *TINY, "--run.folder", tmp_path)


def test_folders_of_other_things_are_refused(
    encoders: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train_text_encoder", "--data", packed, *TINY, "--run.folder", tmp_path, "--run.name"]
    theirs = tmp_path / "project" / "checkpoints" / "epoch-3.ckpt"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"somebody's")
    with pytest.raises(UserError, match=r"holds checkpoints, and neither config\.json, rows nor checkpoints"):
        _door(monkeypatch, *arguments, "project")
    assert [path.name for path in theirs.parent.iterdir()] == [theirs.name]

    train = ["train", *MODEL, "--data.url", packed, "--run.folder", tmp_path, "--run.name"]
    _door(monkeypatch, *train, "generator")
    with pytest.raises(UserError, match="what is trained: a text encoder here, something else there"):
        _door(monkeypatch, *arguments, "generator")
    shutil.copytree(encoders / "tiny", tmp_path / "encoder")
    with pytest.raises(UserError, match="what is trained: a generator here, something else there"):
        _door(monkeypatch, *train, "encoder")
    assert (tmp_path / "encoder" / "DONE").exists()
    for name in ("metrics.jsonl", "checkpoints"):  # either says that it is a training's
        folder = tmp_path / f"without-{name}"
        shutil.copytree(encoders / "tiny", folder, ignore=shutil.ignore_patterns(name))
        _door(
            monkeypatch,
            "train_text_encoder",
            "--data",
            packed,
            *TINY,
            "--run.folder",
            tmp_path,
            "--run.name",
            folder.name,
        )
