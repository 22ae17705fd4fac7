"""Folders of DINOv2 and CLIP: their features are those of transformers' own pipeline, and nothing else is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_encoders import small_clip, small_dinov2

from stackgan_dist.classifiers.image_encoder import FolderEncoder, load_image_encoder
from stackgan_dist.errors import UserError


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    top = tmp_path_factory.mktemp("encoders")
    return {"dinov2": small_dinov2(top / "tiny-dinov2"), "clip": small_clip(top / "tiny-clip")}


def pictures(count: int, side: int) -> tuple[list[Image.Image], torch.Tensor]:
    """Smooth ones, as Pillow has them and as scores do."""
    noise = np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)
    images = [Image.fromarray(one).resize((side, side), Image.Resampling.BICUBIC) for one in noise]
    pixels = np.stack([np.asarray(one) for one in images])
    return images, torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def loaded(folder: Path) -> FolderEncoder:
    encoder = load_image_encoder(str(folder))
    assert isinstance(encoder, FolderEncoder)
    return encoder


@pytest.mark.parametrize(("kind", "width"), [("dinov2", 32), ("clip", 24)])
@pytest.mark.parametrize("side", [40, 128])
def test_features_are_those_of_transformers_own_pipeline(
    folders: dict[str, Path], kind: str, width: int, side: int
) -> None:
    from transformers import AutoModel
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    images, tensor = pictures(5, side)
    processor = AutoImageProcessor.from_pretrained(str(folders[kind]), backend="pil")
    network: Any = AutoModel.from_pretrained(str(folders[kind])).eval()
    values = processor(images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = network.get_image_features(values) if kind == "clip" else network(values)
        reference = output if isinstance(output, torch.Tensor) else output.pooler_output
    found = loaded(folders[kind]).features(tensor)
    assert found.shape == (5, width)
    # Pillow rounds the resized pixels to 256 levels.
    assert torch.nn.functional.cosine_similarity(found, reference).min() > 0.9995
    assert (found - reference).norm() / reference.norm() < 0.02


def test_a_picture_s_features_do_not_depend_on_its_batch(folders: dict[str, Path]) -> None:
    _, tensor = pictures(40, 48)
    for folder in folders.values():
        encoder = loaded(folder)
        assert torch.equal(encoder.features(tensor)[33:36], encoder.features(tensor[33:36]))


def test_sentences_are_encoded_as_transformers_does(folders: dict[str, Path]) -> None:
    from transformers import AutoTokenizer, CLIPModel

    sentences = ["a small red bird", "a very large blue bird with a long beak", ""]
    encode = loaded(folders["clip"]).text_encoder()
    tokenizer = AutoTokenizer.from_pretrained(str(folders["clip"]))
    network: Any = CLIPModel.from_pretrained(str(folders["clip"])).eval()
    for sentence, found in zip(sentences, encode(sentences), strict=True):
        with torch.no_grad():
            output = network.get_text_features(**tokenizer([sentence], return_tensors="pt"))
        reference = output if isinstance(output, torch.Tensor) else output.pooler_output
        torch.testing.assert_close(found, reference[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="tiny-dinov2 reads no sentences"):
        loaded(folders["dinov2"]).text_encoder()


def test_a_row_says_who_it_was(folders: dict[str, Path]) -> None:
    import hashlib

    weights = (folders["clip"] / "model.safetensors").read_bytes()
    said = loaded(folders["clip"]).describe()
    assert said["classifier"] == "tiny-clip"
    assert said["weights_sha256"] == hashlib.sha256(weights).hexdigest()
    assert said["input"].startswith("32x32, bicubic, mean [0.48145466")
    json.dumps(said)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"crop_size": 40}, 40),
        ({"crop_size": {"height": 40, "width": 40}, "size": {"shortest_edge": 48}}, 40),
        ({"size": {"shortest_edge": 48}}, 48),
        ({"size": 48}, 48),
        ({"crop_size": None}, 32),
        ({}, 32),
    ],
)
def test_the_size_is_read_from_old_and_new_preprocessors(
    folders: dict[str, Path], tmp_path: Path, settings: dict[str, Any], size: int
) -> None:
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    assert loaded(folder).size == size


def test_a_file_or_a_name_is_a_classifier() -> None:
    assert load_image_encoder("efficientnet-lite0").feature_width == 1280
    with pytest.raises(UserError, match="no classifier"):
        load_image_encoder("nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "no JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'), "type 'bert'; known are dinov2"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "no \\*.safetensors: other formats may hold code",
        ),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"{"), "cannot be read as a clip model"),
    ],
)
def test_other_folders_are_refused(folders: dict[str, Path], tmp_path: Path, change: Any, message: str) -> None:
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    change(folder)
    with pytest.raises(UserError, match=message):
        load_image_encoder(str(folder))


def test_weights_that_are_missing_are_not_made_up(folders: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folders["dinov2"], tmp_path / "copy"))
    weights = load_file(folder / "model.safetensors")
    weights.pop("layernorm.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights of a dinov2 model, layernorm\.weight"):
        load_image_encoder(str(folder))


def test_clip_without_its_tokenizer_scores_no_sentences(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "copy"))
    for path in [*folder.glob("vocab*"), *folder.glob("merges*"), *folder.glob("tokenizer*")]:
        path.unlink()
    encoder = loaded(folder)
    with pytest.raises(UserError, match="has no tokenizer that can be read"):
        encoder.text_encoder()
