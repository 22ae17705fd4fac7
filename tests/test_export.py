"""A generator alone: every way of exporting it makes the pictures that the run makes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed.tiny import BASELINES, tiny_config, tiny_model, train_alone
from safetensors import safe_open
from small_classifier import small_classifier
from torch import nn

import stackgan_dist
from stackgan_dist import UserError, inception_score
from stackgan_dist.export import __main__ as export
from stackgan_dist.export.onnx import Difference, compare, example_inputs, to_onnx
from stackgan_dist.models import Generator, ModelConfig, Stage2Generator, build_generator
from stackgan_dist.runs.exported import CONFIG, WEIGHTS
from stackgan_dist.runs.score_rows import append_score
from stackgan_dist.storage.folder import Folder

sys.path.append(str(Path(__file__).parents[1] / "examples"))

SENTENCE = "a small red bird"
MODELS = {
    "stage1": tiny_model(text_every_layer=True, detail_layer=True, noise_as_read=True),
    "pytorch": tiny_model(recipe="pytorch", conditioning_augmentation=False),
    "stage2": tiny_model(stage=2, image_size=128, text_every_layer=True, stage1_skip=True, stage1_coarse=16),
    "stage2 without text": tiny_model(stage=2, image_size=128, text_in_stage2=False),
    **BASELINES,
    "own family": tiny_model(family="own_family:Tiny"),
}

QUICK = ("stage2", "gawwn-keypoints")
"""Exporting one takes seconds; the other models are compared by hand."""


def _export(patch: pytest.MonkeyPatch, *arguments: object) -> None:
    patch.setattr("sys.argv", ["export", *map(str, arguments)])
    export.main()


@pytest.mark.parametrize(
    "model",
    [pytest.param(model, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, model in MODELS.items()],
)
def test_every_model_is_the_same_network_as_onnx_for_any_number_of_rows(model: ModelConfig) -> None:
    torch.manual_seed(3)
    network = build_generator(model, 12, tiny_model() if model.stage == 2 else None).requires_grad_(False)
    if isinstance(network, Stage2Generator):
        _trained_a_little(network.stage1, tiny_model())
    _trained_a_little(network, model)
    content = to_onnx(network, model, 12, {"step": 5})
    for rows in (1, 5):
        assert compare(content, network, model, 12, rows).is_rounding


def _trained_a_little(network: Generator, model: ModelConfig) -> None:
    """Statistics of batch norm and a last layer by which pictures differ, as training leaves them."""
    for module in network.modules():
        module.train()  # the frozen Stage-I too
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.momentum = None
    inputs = example_inputs(model, 12, 16)
    given = [inputs["text"], inputs["z"], inputs.get("eps", torch.zeros(16, 0, 4))]
    given += [inputs["place"]] if model.placement else []
    network(*given)
    network.eval()
    *_, last = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d))
    last.weight.data *= 0.3 / network(*given).image.std()
    assert float(network(*given).image.std()) > 0.1


def test_onnx_of_a_run_runs_by_its_inputs_and_outputs(
    three_runs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import onnxruntime

    _export(monkeypatch, three_runs[2], "--to", "onnx", "--out", tmp_path / "out")
    assert "onnxruntime and torch differ by at most" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    assert [(given.name, given.shape[1:]) for given in session.get_inputs()] == [
        ("text", [256]),
        ("z", [4]),
        ("eps", [2, 4]),
    ]
    assert [made.name for made in session.get_outputs()] == ["image", "low_resolution"]
    about = json.loads(session.get_modelmeta().custom_metadata_map["stackgan_dist"])
    assert (about["step"], about["data"]["text_encoder"]) == (5, "ngrams")
    generator = stackgan_dist.load(three_runs[2])
    text = generator.encode([SENTENCE] * 3)
    z, eps = np.ones((3, 4), np.float32), np.zeros((3, 2, 4), np.float32)
    image, low = session.run(None, {"text": text, "z": z, "eps": eps})
    fakes = generator.network(*map(torch.from_numpy, (text, z, eps)))
    # These gaudy networks are steep: rounding alone makes a thousandth.
    np.testing.assert_allclose(image, fakes.image.numpy(), atol=5e-3)
    np.testing.assert_allclose(low, fakes.low_resolution.numpy(), atol=5e-3)


def test_a_difference_is_rounding_up_to_what_the_network_makes_of_it() -> None:
    assert Difference(1e-5, 0).is_rounding
    assert not Difference(1.1e-5, 1e-6).is_rounding
    assert Difference(9e-4, 3e-4).is_rounding
    assert not Difference(1.3e-3, 3e-4).is_rounding
    assert not Difference(2.1e-3, 1e-3).is_rounding  # a thousandth of the range is the most
    assert Difference(8e-7, 5e-7).describe() == "differ by at most 8e-07 (allowed: 1e-05)"
    assert "(allowed: 0.0012, for rounding alone makes 0.0003 of this network)" in Difference(9e-4, 3e-4).describe()


def test_a_generator_that_onnx_makes_another_one_of_is_refused(
    three_runs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("stackgan_dist.export.onnx.compare", lambda *_: Difference(0.25, 1e-6))
    monkeypatch.setattr("stackgan_dist.export.onnx.to_onnx", lambda *_: b"")
    with pytest.raises(SystemExit):
        _export(monkeypatch, three_runs[1], "--to", "onnx", "--out", tmp_path / "out")
    assert "they differ by at most 0.25 (allowed: 1e-05)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sentences_that_the_card_cannot_have(
    packed: Path,
    three_runs: tuple[Path, Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    placed = train_alone(tiny_config(str(packed), tmp_path, "box", model=BASELINES["gawwn-box"]), None)
    for run, sentence, message in (
        (placed, SENTENCE, "--sentences says nothing of where the object is"),
        (three_runs[1], " ", "sentence 1 is empty"),
    ):
        with pytest.raises(SystemExit):
            _export(monkeypatch, run, "--sentences", sentence, "--out", tmp_path / "out")
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


class TestFolder:
    @pytest.fixture
    def exported(self, three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        append_score(
            three_runs[2],
            {"score": "inception", "mean": 1.25, "classifier": "small", "stand_in": True, "step": 5, "weights": "ema"},
        )
        _export(monkeypatch, "--run", three_runs[2], "--out", tmp_path / "model", "--license", "mit", "--texts", "2")
        return tmp_path / "model"

    def test_it_generates_as_the_run_does(self, exported: Path, three_runs: tuple[Path, Path, Path]) -> None:
        ours, theirs = stackgan_dist.load(exported), stackgan_dist.load(three_runs[2])
        assert (ours.step, ours.checkpoint, ours.image_size) == (5, str(exported), 128)
        assert ours.trained.data == theirs.trained.data
        for made, expected in zip(ours.generate(SENTENCE), theirs.generate(SENTENCE), strict=True):
            assert made.tobytes() == expected.tobytes()

    def test_it_has_the_files_and_the_card_of_a_hub(self, exported: Path, three_runs: tuple[Path, Path, Path]) -> None:
        assert sorted(path.name for path in exported.iterdir()) == [
            "README.md", "config.json", "model.safetensors", "samples.png", "words.txt",
        ]  # fmt: skip
        card = (exported / "README.md").read_text()
        assert card.startswith('---\nlicense: "mit"\nlibrary_name: stackgan_dist\npipeline_tag: text-to-image\n')
        for part in (
            "# StackGAN Stage-II on painted, 128 px", "5 steps of 7 pictures", "ngrams, 256 dimensions", "samples.png",
            "| inception | mean 1.25 |", "stand-in classifier must not stand beside published ones",
        ):  # fmt: skip
            assert part in card
        assert str(three_runs[2].parent) not in card + (exported / CONFIG).read_text()

    def test_commands_take_it_like_a_run(
        self,
        exported: Path,
        packed: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        flags = ["--data", packed, "--samples", "4", "--batch-size", "2", "--splits", "1"]
        monkeypatch.setattr("sys.argv", ["inception_score", str(exported), *map(str, flags)])
        with small_classifier():
            inception_score.main()
        assert f"of {exported}, captions of {packed}" in capsys.readouterr().out
        assert json.loads((exported / "scores.jsonl").read_text())["step"] == 5
        _export(monkeypatch, exported, "--to", "safetensors", "--out", tmp_path / "again")
        assert _tensors(tmp_path / "again" / WEIGHTS).keys() == _tensors(exported / WEIGHTS).keys()

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            (CONFIG, None, "is not whole; copy all files"),
            (CONFIG, b"{}", "is not that of an exported generator"),
            (
                CONFIG,
                b'{"format": "stackgan_dist", "format_version": 9, "sha256": ""}',
                "has the format stackgan_dist 9",
            ),
            (WEIGHTS, b"version https://git-lfs.github.com/spec/v1", "pointer of Git LFS"),
            (WEIGHTS, b"", "is not the file that config.json names"),
        ],
    )
    def test_what_is_damaged_is_said(self, exported: Path, name: str, content: bytes | None, message: str) -> None:
        if content is None:
            (exported / name).unlink()
        else:
            (exported / name).write_bytes(content)
        with pytest.raises(UserError, match=message):
            stackgan_dist.load(exported)

    def test_what_it_does_not_hold_is_said(self, exported: Path) -> None:
        with pytest.raises(UserError, match="exported with the ema weights alone; take --weights ema"):
            stackgan_dist.load(exported, weights="raw")
        from stackgan_dist.runs.trained import load_discriminator

        with pytest.raises(UserError, match="without its discriminator; give the run"):
            load_discriminator(stackgan_dist.load(exported).trained, torch.device("cpu"))


def _tensors(file: Path) -> dict[str, torch.Tensor]:
    with safe_open(file, "pt") as opened:
        assert json.loads(opened.metadata()["stackgan_dist"])["step"] == 5
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def test_safetensors_are_the_weights_of_the_run(
    three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in ("ema", "raw"):
        _export(monkeypatch, three_runs[1], "--to", "safetensors", "--weights", kind, "--out", tmp_path / kind)
        expected = stackgan_dist.load(three_runs[1], weights=kind).trained.weights
        found = _tensors(tmp_path / kind / WEIGHTS)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value.float() if value.is_floating_point() else value)


class TestOverwrite:
    def _refused(
        self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], out: Path, *arguments: object
    ) -> str:
        """The message of a call that changes nothing and begins no work."""
        before = {file.name: file.read_bytes() for file in out.iterdir()}
        with patch.context() as no_work:
            no_work.setattr(export, "load_trained", lambda *_, **__: pytest.fail("the work starts"))
            with pytest.raises(SystemExit):
                _export(no_work, "RUN", "--overwrite", "--out", out, *arguments)
        assert before == {file.name: file.read_bytes() for file in out.iterdir()}
        return capsys.readouterr().err

    def test_files_of_a_project_stay(
        self,
        three_runs: tuple[Path, Path, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        mine = {"README.md": b"mine", "config.json": b'{"format": "mine"}', "words.txt": b"mine", "samples.png": b""}
        for name, content in mine.items():
            (tmp_path / name).write_bytes(content)
        for _ in range(2):
            _export(monkeypatch, three_runs[1], "--to", "safetensors", "--overwrite", "--out", tmp_path)
        assert _tensors(tmp_path / WEIGHTS)
        assert mine == {name: (tmp_path / name).read_bytes() for name in mine}
        capsys.readouterr()
        message = self._refused(monkeypatch, capsys, tmp_path)
        assert "holds README.md, config.json, model.safetensors, samples.png, words.txt, which would be" in message
        for name in ("model.safetensors", "model.onnx"):
            (tmp_path / name).write_bytes(b"of somebody else")
            message = self._refused(monkeypatch, capsys, tmp_path, "--to", name.partition(".")[2])
            assert f"holds {name}, which would be replaced, and nothing there says" in message

    def test_an_earlier_export_is_replaced_and_the_rest_stays(
        self,
        three_runs: tuple[Path, Path, Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        out = tmp_path / "model"
        encoder = "char-cnn-rnn-0123456789abcdef.pt"
        _export(monkeypatch, three_runs[1], "--out", out, "--texts", 1)
        for name in ("notes.txt", "model.onnx", encoder):
            (out / name).write_bytes(b"")
        assert "names its model.safetensors" in self._refused(monkeypatch, capsys, out, "--to", "safetensors")
        card = (out / "README.md").read_bytes()
        _export(monkeypatch, three_runs[2], "--out", out, "--texts", 1, "--overwrite")
        assert (out / "README.md").read_bytes() != card
        assert sorted(file.name for file in out.iterdir()) == [
            "README.md", "config.json", "model.onnx", "model.safetensors", "notes.txt", "samples.png", "words.txt",
        ]  # fmt: skip

    def test_what_a_stopped_call_left_is_replaced(
        self, three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        arguments = [three_runs[1], "--out", tmp_path, "--texts", 1]
        write = Folder.write

        def stopped(folder: Folder, name: str, data: bytes) -> None:
            if name == CONFIG:
                raise KeyboardInterrupt
            write(folder, name, data)

        with monkeypatch.context() as patch:
            patch.setattr(Folder, "write", stopped)
            with pytest.raises(SystemExit):
                _export(patch, *arguments)
        (tmp_path / WEIGHTS).unlink()  # as where a call that replaces is stopped between two files
        assert {file.name for file in tmp_path.iterdir()} >= {"README.md", "words.txt"}
        _export(monkeypatch, *arguments, "--overwrite")
        assert sorted(file.name for file in tmp_path.iterdir()) == [
            "README.md", "config.json", "model.safetensors", "samples.png", "words.txt",
        ]  # fmt: skip

    def test_weights_alone_become_a_folder(
        self, three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _export(monkeypatch, three_runs[1], "--out", tmp_path / "a", "--to", "safetensors")
        _export(monkeypatch, three_runs[1], "--out", tmp_path / "a", "--texts", 1, "--overwrite")
        assert stackgan_dist.load(tmp_path / "a").step == 5
