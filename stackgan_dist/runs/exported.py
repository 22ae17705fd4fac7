"""An exported model: a folder with one generator and nothing else, with the file names that model hubs expect.

config.json         what the network is, what it was trained on, for how long; the sha256 of the weights
model.safetensors   the generator's weights, float32
README.md           the model card
samples.png         pictures of sentences, which the card shows
words.txt           the words of the captions that it was trained on
char-cnn-rnn-*.pt   the text encoder, where it is a trained one (stackgan_dist.text.files)

Reading it executes nothing. `load_trained` takes it wherever it takes a run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from stackgan_dist.errors import UserError
from stackgan_dist.storage.folder import Folder

CONFIG, WEIGHTS, CARD, SAMPLES = "config.json", "model.safetensors", "README.md", "samples.png"
_FORMAT, _VERSION = "stackgan_dist", 1
_POINTER = b"version https://git-lfs"


def is_exported(folder: Folder) -> bool:
    """Whether `folder` is that of an exported model, which need not be whole."""
    return folder.exists(WEIGHTS)


def to_safetensors(weights: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> bytes:
    """The content of a safetensors file: weights in float32 and, in its metadata, what they are `about` as JSON."""
    # A tensor may be a part of a larger one, which the format does not have.
    own = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    own = {name: value.float() if value.is_floating_point() else value for name, value in own.items()}
    return save(own, {"format": "pt", _FORMAT: json.dumps(about)})


def to_config(about: Mapping[str, Any], weights: bytes) -> bytes:
    """The content of config.json for the weights in `weights`, those of a safetensors file."""
    head = {"format": _FORMAT, "format_version": _VERSION}
    fields = {**head, **about, "sha256": hashlib.sha256(weights).hexdigest()}
    return (json.dumps(fields, indent=1) + "\n").encode()


def read_exported(folder: Folder) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """What config.json says, and the weights; UserError where they are not of this format, damaged or incomplete."""
    where = folder.url_of(CONFIG)
    try:
        content = json.loads(folder.read_settled(CONFIG))
        found = (content["format"], content["format_version"])
        sha256 = content["sha256"]
    except FileNotFoundError:
        raise UserError(
            f"{folder} has a {WEIGHTS} but no {CONFIG}: it is not whole; copy all files of the exported folder"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not that of an exported generator ({error!r}); export it again") from error
    if found != (_FORMAT, _VERSION):
        raise UserError(
            f"{where} has the format {found[0]} {found[1]}, this version reads {_FORMAT} {_VERSION}; export it again "
            "or use the version that exported it"
        )
    data = folder.read(WEIGHTS, lambda data: hashlib.sha256(data).hexdigest() == sha256)
    if data.startswith(_POINTER):
        raise UserError(f"{folder.url_of(WEIGHTS)} is a pointer of Git LFS; get the file itself with git lfs pull")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{folder.url_of(WEIGHTS)} is not the file that {CONFIG} names by its sha256; copy both again")
    try:
        return content, load(data)
    except SafetensorError as error:
        raise UserError(f"{folder.url_of(WEIGHTS)} cannot be read: {error}") from error
