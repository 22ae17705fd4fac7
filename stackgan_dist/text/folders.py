"""Text encoders that are folders of Hugging Face, given as `hf:FOLDER`: what they are called, and where they lie.

The index of a data set calls one hf-NAME-DIGEST. The folder itself stays where it is: a small file, hf-NAME-DIGEST.json
beside the data set and the run, says where that was. A folder of the name hf-NAME-DIGEST there, or a link, takes its
place. Loads no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stackgan_dist.errors import UserError

PREFIX = "hf:"
_NAME = re.compile(r"hf-[\w.-]+-[0-9a-f]{16}")
_READ = (".json", ".txt", ".model", ".jinja")
"""Endings of what is read beside the weights: configuration, vocabulary, tokenizer, pooling."""


def is_folder_name(name: str) -> bool:
    """Whether an index that names its encoder so means a folder."""
    return _NAME.fullmatch(name) is not None


def same_encoder(ours: str, theirs: str) -> bool:
    """Whether two indexes mean the same encoder: by its name, or for folders by the digest, as one may be renamed."""
    if is_folder_name(ours) and is_folder_name(theirs):
        return ours.rpartition("-")[2] == theirs.rpartition("-")[2]
    return ours == theirs


def folder_of(spec: str) -> Path:
    """The folder that `hf:FOLDER` names; UserError when there is none with a model in it."""
    folder = Path(os.path.expanduser(spec.removeprefix(PREFIX)))  # noqa: PTH111 (Path's own raises without a home)
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "is no folder"
        raise UserError(
            f"the text encoder {spec}: {folder} {what}; give the local folder of a model as Hugging Face has it, what "
            "`hf download MODEL --local-dir FOLDER` or save_pretrained leaves"
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The files of the weights: *.safetensors where there are any, since reading them executes nothing."""
    found = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not found:
        raise UserError(f"{folder} has neither *.safetensors nor pytorch_model.bin; copy the whole folder of the model")
    return found


def folder_name(folder: Path) -> str:
    """What an index calls the encoder in `folder`: hf-NAME-DIGEST, of all that its embeddings depend on."""
    digest = hashlib.sha256()
    for path in _files(folder):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    name = re.sub(r"[^\w.-]+", "-", folder.resolve().name, flags=re.ASCII).strip("-.") or "model"
    return f"hf-{name}-{digest.hexdigest()[:16]}"


def _files(folder: Path) -> Iterator[Path]:
    yield from weight_files(folder)
    for inside in sorted([folder, *(path for path in folder.iterdir() if re.fullmatch(r"\d+_\w+", path.name))]):
        if inside != folder:  # a module of sentence-transformers
            yield from sorted(path for path in inside.glob("*.safetensors"))
        yield from sorted(path for path in inside.iterdir() if path.suffix in _READ and path.is_file())


def to_pointer(folder: Path, name: str | None = None) -> bytes:
    """The content of the file that says where the encoder in `folder` lies; `name` is its `folder_name`, if known."""
    content = {"text_encoder": name or folder_name(folder), "folder": str(folder.resolve())}
    return (json.dumps(content, indent=1) + "\n").encode()


def from_pointer(data: bytes) -> tuple[str, Path] | None:
    """The encoder's name and its folder; None where `data` is no such file."""
    try:
        content: Any = json.loads(data)
        return str(content["text_encoder"]), Path(content["folder"])
    except (ValueError, KeyError, TypeError):
        return None


def check_folder(name: str, folder: Path) -> str:
    """The `folder_name` of `folder`, which is to hold the encoder `name`; UserError where it is gone or another one."""
    wanted = f"the text encoder {name} is needed for new sentences"
    give = f"give its folder with hf:FOLDER (--encoder), or copy or link it beside the data set or the run as {name}"
    if not (folder / "config.json").is_file():
        raise UserError(f"{wanted}, and {folder} is not there; {give}")
    if not same_encoder(found := folder_name(folder), name):
        raise UserError(f"{wanted}; {folder} holds {found}, which is another one; {give}")
    return found
