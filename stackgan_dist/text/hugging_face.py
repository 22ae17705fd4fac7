"""Sentence encoders out of folders of Hugging Face: BERT-like ones by pooling, CLIP's and SigLIP's text towers.

Nothing is downloaded and no code in a folder is run. Pooling is what the folder's own modules.json asks for, as
sentence-transformers writes it, else the mean over the tokens; a text tower gives its projected embedding.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from stackgan_dist.errors import UserError, first_line
from stackgan_dist.hugging_face import read_json, read_network, transformers_for
from stackgan_dist.text.folders import folder_name, weight_files
from stackgan_dist.text.protocol import SentenceError

_BATCH_SENTENCES = {"cpu": 32, "cuda": 256}
_NEEDED = "a text encoder"
_LONGEST = 512
"""Tokens, where neither the tokenizer nor the configuration says how many."""
_TOWERS = {
    "clip": "CLIPModel", "clip_text_model": "CLIPTextModelWithProjection",
    "siglip": "SiglipTextModel", "siglip_text_model": "SiglipTextModel",
    "siglip2": "Siglip2TextModel", "siglip2_text_model": "Siglip2TextModel",
}  # fmt: skip
"""model_type -> the class of its text tower."""

Pool = Callable[[Tensor, Tensor], Tensor]
"""(states (N, T, D), mask (N, T, 1) of 0 and 1, in float32) -> (N, D)."""


def _last(states: Tensor, mask: Tensor) -> Tensor:
    place = (mask.squeeze(-1) * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(1)
    return states[torch.arange(len(states), device=states.device), place]


def _first(states: Tensor, mask: Tensor) -> Tensor:
    place = mask.squeeze(-1).argmax(1)  # behind the padding, where that is to the left
    return states[torch.arange(len(states), device=states.device), place]


_POOLS: dict[str, Pool] = {
    "mean_tokens": lambda states, mask: (states * mask).sum(dim=1) / mask.sum(dim=1),
    "cls_token": _first,
    "max_tokens": lambda states, mask: states.masked_fill(mask == 0, -torch.inf).max(dim=1).values,
    "lasttoken": _last,
}
"""As sentence-transformers calls them, behind pooling_mode_."""


class HuggingFaceEncoder:
    """The encoder in a local folder, a TextEncoder.

    Args:
        folder: of the model.
        name: what an index calls it; by default its hf-NAME-DIGEST.

    Raises UserError where the folder cannot be read, or transformers is not installed.
    """

    def __init__(self, folder: Path, name: str | None = None) -> None:
        transformers = transformers_for("a text encoder of Hugging Face")
        self.name = name or folder_name(folder)
        config = read_json(folder / "config.json", _NEEDED)
        self._is_siglip = str(config.get("model_type")).startswith("siglip")
        tower = _TOWERS.get(str(config.get("model_type")))
        kind = getattr(transformers, tower or "AutoModel")
        if not any((folder / file).exists() for file in _TOKENIZERS):
            # transformers would make a tokenizer that knows no words, and say nothing.
            raise UserError(f"{folder} has no tokenizer ({', '.join(_TOKENIZERS)}); copy its tokenizer files there too")
        safe = weight_files(folder)[0].suffix == ".safetensors"
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # transformers fails in as many ways as a folder can be wrong
            raise UserError(f"{folder} cannot be read as {_NEEDED}: {first_line(error)}") from error
        model = read_network(kind, folder, _NEEDED, safetensors=safe, unused=None if tower else "pooler")
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        if hasattr(model, "vision_model"):
            model.vision_model = None  # of CLIP, for its pictures
        self._device = _device()
        self._model = model.to(self._device)
        self._pool: Pool | None = None
        self._dense: list[nn.Module] = []
        self._prompt = ""
        if not tower:
            self._pool, self._dense, self._prompt = _pooling(folder)
        self._dense = [layer.to(self._device) for layer in self._dense]
        self._longest = self._longest_sentence(folder, config)
        self.dim = self._encode_batch(["a bird"]).shape[1]

    def encode(self, sentences: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (len(sentences), dim), float32, of mean square 1 per entry.

        What is longer than the model reads is cut off. Raises SentenceError for an empty sentence.
        """
        for sentence in sentences:
            if not sentence.strip():
                raise SentenceError("cannot encode an empty sentence; give one that describes a picture")
        # Each different sentence once, and neighbours of like length, so that little of a batch is padding.
        distinct = sorted(set(sentences), key=lambda sentence: (len(sentence), sentence))
        row_of = {sentence: row for row, sentence in enumerate(distinct)}
        size = _BATCH_SENTENCES.get(self._device.type, 32)
        batches = [self._encode_batch(distinct[start : start + size]) for start in range(0, len(distinct), size)]
        embeddings = np.concatenate(batches) if batches else np.empty((0, self.dim), dtype=np.float32)
        return embeddings[[row_of[sentence] for sentence in sentences]]

    @torch.inference_mode()
    def _encode_batch(self, sentences: list[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(
            [self._prompt + sentence for sentence in sentences],
            padding="max_length" if self._is_siglip else True,  # it was trained so, and has no mask
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
        ).to(self._device)
        if self._pool is None:
            if self._is_siglip:
                pooled = self._model(input_ids=tokens["input_ids"]).pooler_output
            else:
                states = self._model.text_model(
                    input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
                ).pooler_output
                pooled = self._model.text_projection(states)
        else:
            states = self._model(**tokens).last_hidden_state
            pooled = self._pool(states, tokens["attention_mask"].unsqueeze(-1).to(states.dtype))
            for layer in self._dense:
                pooled = layer(pooled)
        unit = F.normalize(pooled, dim=1)
        embeddings: NDArray[np.float32] = (unit * pooled.shape[1] ** 0.5).cpu().numpy()
        return embeddings

    def _longest_sentence(self, folder: Path, config: dict[str, Any]) -> int:
        """In tokens: what sentence-transformers was told, else what tokenizer and positions allow."""
        file = folder / "sentence_bert_config.json"
        if file.exists() and (said := read_json(file, _NEEDED).get("max_seq_length")):
            return int(said)
        text = config.get("text_config", config)
        positions = int(text.get("max_position_embeddings", _LONGEST))
        if "roberta" in str(config.get("model_type")):
            positions -= int(config.get("pad_token_id", 1)) + 1  # its positions are counted from there
        return min(int(self._tokenizer.model_max_length), positions)


_TOKENIZERS = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def _pooling(folder: Path) -> tuple[Pool, list[nn.Module], str]:
    """What modules.json makes of the tokens: the pool, layers behind it, and what is put before every sentence."""
    prompts = folder / "config_sentence_transformers.json"
    said = read_json(prompts, _NEEDED) if prompts.exists() else {}
    prompt = str((said.get("prompts") or {}).get(said.get("default_prompt_name") or "", ""))
    if not (folder / "modules.json").exists():
        return _POOLS["mean_tokens"], [], prompt
    pool, layers = _POOLS["mean_tokens"], list[nn.Module]()
    for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        kind, inside = module["type"].rpartition(".")[2], folder / module["path"]
        if kind == "Pooling":
            pool = _pool_of(read_json(inside / "config.json", _NEEDED), inside)
        elif kind == "Dense":
            layers.append(_dense(inside))
        elif kind not in ("Transformer", "Normalize"):
            raise UserError(
                f"{folder / 'modules.json'} asks for a {kind}; known are Transformer, Pooling, Dense, Normalize"
            )
    return pool, layers, prompt


def _pool_of(config: dict[str, Any], where: Path) -> Pool:
    modes = [
        name.removeprefix("pooling_mode_") for name, on in config.items() if name.startswith("pooling_mode_") and on
    ]
    if (mode := config.get("pooling_mode")) is not None:  # the newer form
        modes = [{"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens"}.get(mode, mode)]
    if len(modes) != 1 or modes[0] not in _POOLS:
        raise UserError(
            f"{where} pools by {' and '.join(modes) or 'nothing'}; known are {', '.join(_POOLS)}, one of them"
        )
    return _POOLS[modes[0]]


def _dense(folder: Path) -> nn.Module:
    from safetensors.torch import load_file

    config = read_json(folder / "config.json", _NEEDED)
    activation = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if activation not in ("Identity", "Tanh"):
        raise UserError(f"{folder} ends in {activation}; known are Identity and Tanh")
    layer = nn.Linear(int(config["in_features"]), int(config["out_features"]), bool(config.get("bias", True)))
    if (folder / "model.safetensors").exists():
        weights = load_file(folder / "model.safetensors")
    else:
        weights = torch.load(folder / "pytorch_model.bin", map_location="cpu", weights_only=True)
    layer.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    return nn.Sequential(layer.requires_grad_(False), nn.Tanh() if activation == "Tanh" else nn.Identity())


def _device() -> torch.device:
    """A GPU where there is one: under torchrun that of the rank, for its packing processes too."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
