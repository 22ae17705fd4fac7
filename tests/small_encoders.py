"""Folders of a DINOv2 and a CLIP as Hugging Face lays them out: the real architectures, small, with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch


def small_dinov2(folder: Path) -> Path:
    """A Dinov2Model of two layers and 32 features."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, image_size=56, patch_size=14, mlp_ratio=2
    )
    Dinov2Model(config).save_pretrained(folder)
    _preprocessor(folder, "BitImageProcessor", 56, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return folder


def small_clip(folder: Path) -> Path:
    """A CLIPModel of 24 features, with the tokenizer of bytes."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(1)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    vocabulary = _tokenizer(folder)
    config = CLIPConfig(
        text_config={
            **size,
            "vocab_size": vocabulary,
            "max_position_embeddings": 77,
            "bos_token_id": vocabulary - 2,
            "eos_token_id": vocabulary - 1,
            "pad_token_id": vocabulary - 1,
        },
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=24,
    )
    CLIPModel(config).save_pretrained(folder)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    _preprocessor(folder, "CLIPImageProcessor", 32, mean, std)
    return folder


def _preprocessor(folder: Path, kind: str, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    content = {
        "image_processor_type": kind,
        "do_resize": True, "size": {"shortest_edge": size}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": size, "width": size},
        "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": mean, "image_std": std, "do_convert_rgb": True,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def _tokenizer(folder: Path) -> int:
    """CLIP's, that knows single bytes and merges none; its vocabulary."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder.mkdir(parents=True, exist_ok=True)
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    content = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "model_max_length": 77,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return len(words)
