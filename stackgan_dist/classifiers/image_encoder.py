"""Networks that give features of pictures and know no classes: DINOv2 and CLIP, from folders as Hugging Face has them.

A folder is what `huggingface-cli download` or `save_pretrained` leaves: config.json, model.safetensors and
preprocessor_config.json; for sentences CLIP's tokenizer too. Nothing is downloaded, and no code in a folder is run.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stackgan_dist.classifiers.classifier import BATCH_SIZE, NetworkClassifier, load_classifier
from stackgan_dist.errors import UserError, first_line
from stackgan_dist.hugging_face import read_json, read_network, transformers_for

Kind = Literal["dinov2", "clip"]
_KINDS: dict[str, Kind] = {"dinov2": "dinov2", "dinov2_with_registers": "dinov2", "clip": "clip"}
"""model_type in a folder's config.json -> how it is used."""
_NEEDED = "a DINOv2 or a CLIP"
_IMAGENET = {"image_mean": (0.485, 0.456, 0.406), "image_std": (0.229, 0.224, 0.225)}
_TITLES = {"dinov2": "FD-DINOv2", "clip": "CLIP-FID and CMMD"}


class ImageEncoder(Protocol):
    """A frozen network from pictures to features. What it says of a picture does not depend on the rest of the batch.

    A Classifier is one too.
    """

    name: str
    feature_width: int
    is_stand_in: bool

    @property
    def comparable_with(self) -> str:
        """A sentence for the report: which other scores a score of this network may stand beside."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """Features (N, feature_width), float32, of images (N, 3, S, S) in [-1, 1]."""
        ...

    def resized(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1] at the network's own size, as it would resize them itself."""
        ...

    def describe(self) -> dict[str, Any]:
        """The identity that every reported score carries; JSON types."""
        ...


@dataclass
class FolderEncoder:
    """DINOv2's class token behind the last norm, or CLIP's projected embedding of the picture: an ImageEncoder.

    Pictures are resized as Pillow's bicubic filter does, without its rounding to 256 levels, to the square that the
    folder's preprocessor crops to; they are square, so there is nothing to crop.
    """

    name: str
    kind: Kind
    feature_width: int
    module: nn.Module
    """The network, frozen, on `device`."""
    device: torch.device | str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    folder: Path
    weights_sha256: str
    is_stand_in: bool = False

    @property
    def comparable_with(self) -> str:
        """A sentence for the report."""
        return f"{_TITLES[self.kind]} by these very weights, of as many pictures, resized alike"

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """See ImageEncoder; the images may lie on any device."""
        return torch.cat([self._of_batch(part) for part in images.split(BATCH_SIZE)])

    def _of_batch(self, images: Tensor) -> Tensor:
        n = len(images)
        # Filled up, every batch is computed alike: see NetworkClassifier.
        x = F.pad(images.to(self.device, torch.float32), (0, 0, 0, 0, 0, 0, 0, BATCH_SIZE - n))
        network = cast(Any, self.module)
        if self.kind == "clip":
            states = network.vision_model(pixel_values=self.prepared(x)).pooler_output
            return cast(Tensor, network.visual_projection(states))[:n]
        return cast(Tensor, network(pixel_values=self.prepared(x)).pooler_output)[:n]

    def resized(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in [-1, 1], float32, at the network's size and in the same range."""
        if images.shape[2:] == (self.size, self.size):
            return images
        return F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(-1, 1)

    def prepared(self, images: Tensor) -> Tensor:
        """Images (N, 3, S, S) in [-1, 1], on `device`, as the network wants them."""
        images = self.resized(images)
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        return ((images + 1) / 2 - mean) / std

    def text_encoder(self) -> Callable[[Sequence[str]], Tensor]:
        """From sentences to CLIP's embeddings of them (N, feature_width), in the space of its pictures' features.

        Raises UserError for a network without one, and a folder without its tokenizer.
        """
        if self.kind != "clip":
            raise UserError(f"{self.name} reads no sentences: the CLIP score needs the folder of a CLIP")
        from transformers import AutoTokenizer

        try:
            # Of a folder without these files transformers makes a tokenizer that knows no words, and says nothing.
            if not any((self.folder / name).exists() for name in ("tokenizer.json", "vocab.json")):
                raise FileNotFoundError("neither tokenizer.json nor vocab.json is there")
            tokenizer = AutoTokenizer.from_pretrained(str(self.folder), local_files_only=True)
        except Exception as error:  # transformers fails in as many ways as a folder can be incomplete
            raise UserError(
                f"{self.folder} has no tokenizer that can be read ({first_line(error)}): copy CLIP's tokenizer files "
                "there too"
            ) from error
        network = cast(Any, self.module)
        longest = network.config.text_config.max_position_embeddings

        @torch.no_grad()
        def encode(sentences: Sequence[str]) -> Tensor:
            parts = []
            for begin in range(0, len(sentences), BATCH_SIZE):
                some = list(sentences[begin : begin + BATCH_SIZE])
                # All batches are computed alike, as those of pictures are: full, and with all positions.
                filled = some + [""] * (BATCH_SIZE - len(some))
                tokens = tokenizer(
                    filled, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
                ).to(self.device)
                states = network.text_model(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                ).pooler_output
                parts.append(network.text_projection(states)[: len(some)])
            return torch.cat(parts)

        return encode

    def describe(self) -> dict[str, Any]:
        """See ImageEncoder."""
        return {
            "classifier": self.name,
            "network": f"{type(self.module).__name__}, {self.feature_width} features",
            "weights_sha256": self.weights_sha256,
            "stand_in": self.is_stand_in,
            "comparable_with": self.comparable_with,
            "input": f"{self.size}x{self.size}, bicubic, mean {list(self.mean)}, deviation {list(self.std)}",
        }


def load_image_encoder(spec: str, device: torch.device | str = "cpu") -> FolderEncoder | NetworkClassifier:
    """The encoder that `spec` names, frozen, on `device`: a folder of a DINOv2 or a CLIP, or any classifier.

    Raises UserError for a folder that is neither, or lacks something, and as load_classifier does.
    """
    folder = Path(os.path.expanduser(spec))  # noqa: PTH111 (Path's own raises where a user has no home)
    return _of_folder(folder, device) if folder.is_dir() else load_classifier(spec, device)


def _of_folder(folder: Path, device: torch.device | str) -> FolderEncoder:
    config = read_json(folder / "config.json", _NEEDED)
    kind = _KINDS.get(str(config.get("model_type")))
    if kind is None:
        raise UserError(
            f"{folder} holds a model of the type {config.get('model_type')!r}; known are {', '.join(_KINDS)}"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise UserError(
            f"{folder} has no *.safetensors: other formats may hold code and are not read. Save the model again with "
            "save_pretrained"
        )
    preprocessor = folder / "preprocessor_config.json"
    settings = read_json(preprocessor, _NEEDED) if preprocessor.exists() else {}
    auto_model = transformers_for("a folder of Hugging Face").AutoModel
    module = read_network(auto_model, folder, f"a {kind} model").to(device)
    # The folder of CLIP has the crop's size, or both sides of it; that of DINOv2 too. Older ones have a plain number.
    size = settings.get("crop_size", settings.get("size")) or {}
    side = size if isinstance(size, int) else next((size[n] for n in ("height", "shortest_edge") if n in size), None)
    vision = module.config.vision_config if kind == "clip" else module.config
    return FolderEncoder(
        name=folder.resolve().name,
        kind=kind,
        feature_width=module.config.projection_dim if kind == "clip" else module.config.hidden_size,
        module=module,
        device=device,
        size=int(side or (vision.image_size if kind == "clip" else 224)),
        mean=tuple(settings.get("image_mean", _IMAGENET["image_mean"])),
        std=tuple(settings.get("image_std", _IMAGENET["image_std"])),
        folder=folder,
        weights_sha256=_digest(weights),
    )


def _digest(files: Sequence[Path]) -> str:
    """sha256 of the file, or of the digests of several."""
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256"))
    if len(digests) == 1:
        return digests[0].hexdigest()
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
