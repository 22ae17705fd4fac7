"""Models in folders as Hugging Face has them. Nothing is downloaded, and no code in a folder is run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from stackgan_dist.errors import UserError, first_line


def transformers_for(what: str) -> ModuleType:
    """The package transformers, quiet and without the network; UserError, which says what needs it, without it."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read on import; compute nodes often have no network
    try:
        import transformers
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise UserError(
            f"{what} needs a package that is not installed ({error}): pip install 'stackgan_dist[encoders]'"
        ) from error
    disable_progress_bar()  # one for 0.1 s of reading, in every process
    return transformers


def read_json(file: Path, needed: str) -> dict[str, Any]:
    """The object in `file`; UserError, which says what folder is `needed`, where there is none."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read ({error}); needed is a folder of {needed} as Hugging Face has it"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object; copy the folder again")
    return content


def read_network(kind: Any, folder: Path, what: str, *, safetensors: bool = True, unused: str | None = None) -> Any:
    """The network in `folder`, frozen, in float32 and on the CPU.

    Args:
        kind: class or auto class of transformers.
        folder: of the model.
        what: it is, with its article, for messages.
        safetensors: whether its weights are in such files; else torch's reader takes weights alone.
        unused: weights with this in their names may be missing.

    Raises UserError where transformers cannot read it, or would fill in weights that are not there.
    """
    try:
        network, loading = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=safetensors,
            weights_only=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # transformers fails in as many ways as a folder can be wrong
        raise UserError(f"{folder} cannot be read as {what}: {first_line(error)}") from error
    missing = sorted(key for key in loading["missing_keys"] if unused is None or unused not in key)
    if missing:  # transformers fills them with random numbers
        raise UserError(f"{folder} lacks {len(missing)} weights of {what}, {missing[0]} among them: copy it again")
    assert isinstance(network, nn.Module)
    return network.eval().requires_grad_(False)
