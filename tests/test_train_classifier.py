"""The front door that makes classifiers: same weights on any ranks, a record, and scores that take its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from distributed.forked import run_door, run_forked
from small_classifier import open_door_with_it, small_classifier

from stackgan_dist import train_classifier
from stackgan_dist.classifiers import classifier, fine_tuning
from stackgan_dist.classifiers.classifier import load_classifier
from stackgan_dist.classifiers.fine_tuning import FineTuning
from stackgan_dist.classifiers.inception_v3 import InceptionV3
from stackgan_dist.classifiers.labelled_pictures import LabelledPictures
from stackgan_dist.config import DataConfig
from stackgan_dist.data.dataset import open_packed
from stackgan_dist.distributed.process_group import Ranks
from stackgan_dist.errors import UserError


def _train(patch: pytest.MonkeyPatch, *arguments: object) -> None:
    patch.setattr("sys.argv", ["train_classifier", *map(str, arguments)])
    train_classifier.main.__wrapped__()  # type: ignore[attr-defined]


def _pictures(packed: Path, batch_size: int = 5, **changes: Any) -> LabelledPictures:
    fields = {"image_size": 64, "batch_size": batch_size, "held_out": 0.3, "seed": 0} | changes
    return LabelledPictures(open_packed(DataConfig(url=str(packed)), 64, "train").captions(), **fields)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_picture_is_seen_once_by_some_rank(packed: Path, ranks: int) -> None:
    batches = [batch for rank in range(ranks) for batch in _pictures(packed).views(3, rank, ranks)]
    seen = torch.cat([batch.numbers for batch in batches])
    held_out = torch.cat([batch.held_out for batch in batches])
    assert sorted(set(seen.tolist())) == list(range(38))
    assert 3 <= held_out.sum() <= 20
    counts = torch.bincount(seen)
    assert all(int(counts[n]) == (1 if h else 3) for n, h in zip(seen.tolist(), held_out.tolist(), strict=True))


def test_held_out_pictures_are_the_same_whatever_their_batch_and_differ_by_seed(packed: Path) -> None:
    def held_out(**changes: Any) -> set[int]:
        batches = _pictures(packed, **changes).views(1, 0, 1)
        return {int(n) for batch in batches for n in batch.numbers[batch.held_out]}

    assert held_out() == held_out(batch_size=38)
    assert held_out() != held_out(seed=1)
    assert held_out() < held_out(held_out=0.8)


def test_views_differ_and_the_first_is_the_middle(packed: Path) -> None:
    first, second, third = list(_pictures(packed, batch_size=38, held_out=1e-9).views(3, 0, 1))
    assert first.images.shape == (38, 3, 64, 64)
    assert -1 <= first.images.min() < first.images.max() <= 1
    assert not torch.equal(first.images, second.images)
    assert not torch.equal(second.images, third.images)
    again = list(_pictures(packed, batch_size=38, held_out=1e-9).views(3, 0, 1))
    assert torch.equal(third.images, again[2].images)


def test_a_trained_file_is_a_classifier_of_the_data_s_classes_on_any_ranks(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--data", packed, "--image-size", 64, "--views", 1, "--batch-size", 32]
    one, two = tmp_path / "one.pt", tmp_path / "two.pt"
    _train(monkeypatch, *arguments, "--out", one)
    run_door(2, "train_classifier", *arguments, "--out", two, log=tmp_path / "log")
    ours, theirs = torch.load(one, weights_only=True), torch.load(two, weights_only=True)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        difference = (theirs[name].double() - value.double()).abs().max()
        assert difference <= 1e-5 * value.double().abs().max(), name

    output = capsys.readouterr().out
    assert "held-out pictures" in output
    assert "as in the paper's protocol" in output
    record = json.loads(one.with_suffix(".json").read_text())
    index = open_packed(DataConfig(url=str(packed)), 64, "test").index
    assert record["classes"] == list(index.classes)
    assert record["data_digest"] == index.digest
    assert 0 <= record["held_out_accuracy"] <= 1

    loaded = load_classifier(str(one))
    assert loaded.classes == len(index.classes)
    described = loaded.describe()
    assert described["classifier"] == "one.pt"
    assert described["fine_tuned"] == record
    assert described["weights_sha256"] == record["weights_sha256"]
    assert "same file" in described["comparable_with"]
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    expected = loaded.features(images) @ ours["_fc.weight"].T + ours["_fc.bias"]
    torch.testing.assert_close(loaded.logits(images), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="takes no options"):
        load_classifier(f"{one}?background=1")

    two.with_suffix(".json").write_text(json.dumps(record | {"weights_sha256": "of another file"}))
    assert "fine_tuned" not in load_classifier(str(two)).describe()


def _loss(file: Path, pictures: LabelledPictures, learned: list[int]) -> float:
    """Mean cross entropy of the views that all layers saw first."""
    with small_classifier():
        loaded = load_classifier(str(file))
    batch = pictures.batch(learned, fine_tuning.FIRST_VIEW)
    return float(F.cross_entropy(loaded.logits(batch.images), batch.labels))


def test_all_layers_are_trained_on_alike_on_any_ranks(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--data", packed, "--split", "train", "--image-size", 64, "--views", 1, "--batch-size", 7]
    tuning = ["--epochs", 2, "--learning-rate", 1e-5]
    fitted, one, three = (tmp_path / f"{name}.pt" for name in ("fitted", "one", "three"))
    with small_classifier():
        _train(monkeypatch, *arguments, "--out", fitted)
        _train(monkeypatch, *arguments, *tuning, "--out", one)
    run_forked(
        open_door_with_it, 3, "train_classifier", *map(str, [*arguments, *tuning, "--out", three]), log=tmp_path / "log"
    )
    before, ours, theirs = (torch.load(file, weights_only=True) for file in (fitted, one, three))
    for name, value in ours.items():
        change = (value.double() - before[name].double()).norm()
        difference = (theirs[name].double() - value.double()).norm()
        assert (change > 0) == ("running" not in name and "num_batches" not in name), name
        # Float32 through 60 layers with batches of other sizes, and Adam turns tiny gradients into whole steps.
        assert difference <= 0.01 * change, name
    assert json.loads(one.with_suffix(".json").read_text())["epochs"] == 2
    pictures = _pictures(packed, held_out=0.2)
    learned = [int(n) for batch in pictures.views(1, 0, 1) for n in batch.numbers[~batch.held_out]]
    assert _loss(one, pictures, learned) < 0.85 * _loss(fitted, pictures, learned)


def test_a_rank_without_pictures_of_a_batch_takes_its_step_too(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine_tuning, "BATCH_SIZE", 2)
    tuning, learned, pictures = FineTuning(2, 1e-5, batch_size=7, seed=0), torch.arange(1, 9), _pictures(packed)
    seen = []
    for rank in range(3):
        pieces = list(tuning._pieces(pictures, learned, Ranks(rank, 3, torch.device("cpu"), None)))
        assert [piece.of for piece in pieces if piece.is_last] == [7, 1, 7, 1]
        assert all((piece.views is None) == (len(piece.numbers) == 0) for piece in pieces)
        seen += [int(number) for piece in pieces if piece.views is not None for number in piece.views.numbers]
    assert sorted(seen) == sorted(2 * learned.tolist())


def test_an_inception_file_gets_a_layer_of_the_data_s_classes(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classifier, "BATCH_SIZE", 2)
    monkeypatch.setattr(LabelledPictures, "__len__", lambda self: 6)
    torch.manual_seed(0)
    torch.save(InceptionV3(7, auxiliary_head=True).state_dict(), tmp_path / "base.pth")
    out = tmp_path / "birds.pt"
    _train(
        monkeypatch, "--data", packed, "--image-size", 64, "--network", f"{tmp_path}/base.pth?pooling=tensorflow",
        "--views", 1, "--out", out,
    )  # fmt: skip
    assert f"--classifier '{out}?pooling=tensorflow'" in capsys.readouterr().out
    loaded = load_classifier(f"{out}?pooling=tensorflow")
    assert loaded.classes == len(open_packed(DataConfig(url=str(packed)), 64, "test").index.classes)
    assert loaded.describe()["pooling"] == "tensorflow"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--held-out", 0], "--held-out is 0"),
        (["--views", 0], "--views is 0"),
        (["--decay", 0], "--decay is 0"),
        (["--epochs", -1], "--epochs is -1"),
        (["--epochs", 1, "--learning-rate", 0], "--learning-rate is 0"),
        (["--network", "resnet"], "neither a known name"),
        (["--image-size", 256], "--sizes 304"),
    ],
)
def test_wrong_options_are_user_errors(
    packed: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        _train(monkeypatch, "--data", packed, "--image-size", 64, *arguments)


def _work_starts(*_: object) -> None:
    raise AssertionError("the work starts")


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_classifier, "_look_at_all", _work_starts)


@pytest.mark.usefixtures("no_work")
def test_files_that_are_there_are_replaced_only_when_told_to(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", packed, "--image-size", 64]
    with small_classifier():
        for there, out in (
            ("thesis.tex", ["--out", "thesis.tex"]),
            ("thesis.json", ["--out", "thesis.tex"]),
            ("classifiers/painted-test.pt", []),
            ("classifiers/painted-test.json", []),
        ):
            file = tmp_path / there
            file.parent.mkdir(exist_ok=True)
            file.write_text("mine")
            with pytest.raises(UserError, match=rf"{there} would be replaced.*give another --out, or say --overwrite"):
                _train(monkeypatch, *arguments, *out)
            with pytest.raises(AssertionError, match="the work starts"):
                _train(monkeypatch, *arguments, *out, "--overwrite")
            assert file.read_text() == "mine"
            file.unlink()
        with pytest.raises(AssertionError, match="the work starts"):
            _train(monkeypatch, *arguments)


@pytest.mark.usefixtures("no_work")
def test_what_a_killed_call_left_does_not_keep_the_same_call_from_starting_again(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reproduce` calls it again without looking."""
    out = tmp_path / "birds.pt"

    def work(*_: object) -> Any:
        monkeypatch.setattr(train_classifier, "write_bytes", killed_at_the_second)
        return (torch.empty(0), torch.empty(0, 1280), torch.empty(0).long(), torch.empty(0).bool())

    written: list[str] = []
    write_bytes = train_classifier.write_bytes

    def killed_at_the_second(url: str, data: bytes) -> None:
        if written:
            raise KeyboardInterrupt
        write_bytes(url, data)
        written.append(url)

    arguments = ["--data", packed, "--image-size", 64, "--out", out]
    with small_classifier(), monkeypatch.context() as patch:
        patch.setattr(train_classifier, "_look_at_all", work)
        patch.setattr(train_classifier, "fit_head", lambda *_: ())
        patch.setattr(classifier.NetworkClassifier, "replace_last_layer", lambda *_: None)
        patch.setattr(train_classifier, "_tested", lambda *_: (1, 2))
        with pytest.raises(KeyboardInterrupt):
            _train(monkeypatch, *arguments)
    assert written == [str(tmp_path / "birds.json")]  # weights never lie there without a record
    with small_classifier():
        with pytest.raises(AssertionError, match="the work starts"):
            _train(monkeypatch, *arguments)
        with pytest.raises(UserError, match=r"birds.json would be replaced"):
            _train(monkeypatch, *arguments, "--seed", 1)


@pytest.mark.usefixtures("no_work")
def test_files_that_cannot_be_a_classifier_s(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for out, message in (
        ("s3://bucket/birds.pt", "--out is s3://bucket/birds.pt, which is not on a disk of this machine; --classifier"),
        (tmp_path, "is a folder; give the file to write"),
        ("birds.json", "give one that ends in .pt"),
    ):
        with small_classifier(), pytest.raises(UserError, match=message):
            _train(monkeypatch, "--data", packed, "--image-size", 64, "--out", out)
    with small_classifier(), pytest.raises(AssertionError, match="the work starts"):
        _train(monkeypatch, "--data", packed, "--image-size", 64, "--out", f"file://{tmp_path}/birds.pt")
    assert list(tmp_path.iterdir()) == []
