"""A trained generator, ready to use: what `generate`, the scores and Stage-II start from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from stackgan_dist.config import Config, from_json
from stackgan_dist.data.words import WORDS_NAME
from stackgan_dist.errors import UserError
from stackgan_dist.importable import check_allowed
from stackgan_dist.models import Discriminator, Generator, ModelConfig, build_discriminator, build_generator
from stackgan_dist.runs.checkpoint import (
    FoundCheckpoint,
    find_newest,
    from_bytes,
    is_checkpoint,
    non_finite,
    read_checkpoint,
)
from stackgan_dist.runs.exported import CONFIG, is_exported, read_exported
from stackgan_dist.runs.folder import DataIdentity, RunFolder, find_run
from stackgan_dist.storage.folder import Folder, FolderLike
from stackgan_dist.text import TextEncoder, load_encoder, load_given


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds for generating pictures."""

    folder: RunFolder
    checkpoint: str
    step: int
    config: Config
    stage1_model: ModelConfig | None
    """For Stage-II: what the frozen Stage-I inside is made of."""
    data: DataIdentity
    weights: dict[str, torch.Tensor]
    """Of the generator."""
    kind: Literal["ema", "raw"]
    """Which weights these are: the moving average, or those of the last step."""
    discriminator_weights: dict[str, torch.Tensor]
    """Of the discriminator that it was trained against; none in an exported folder."""

    def check_allowed(self) -> None:
        """Raises UserError where its family is a user's own, and importing it is not allowed."""
        if self.config.model.is_own:
            check_allowed(self.config.model.family, f"the checkpoint {self.checkpoint}")

    def encoder(self, given: str | None = None) -> TextEncoder:
        """The encoder of the texts that it was trained on, or that very one as it is `given` anew, e.g. hf:FOLDER.

        Raises UserError where none is for new sentences, it is lost, or another one was given.
        """
        if given is not None:
            return load_given(given, self.data.text_encoder)
        return load_encoder(self.data.text_encoder, (self.folder.root, self.config.data.url))

    def words(self) -> frozenset[str] | None:
        """The words of the captions that it was trained on; None where the run does not say."""
        try:
            return frozenset(self.folder.root.read(WORDS_NAME).decode().split())
        except OSError:
            return None

    def generator(self, device: torch.device) -> Generator:
        """The generator in eval mode on `device`, in float32."""
        self.check_allowed()
        network = build_generator(self.config.model, self.data.text_dim, self.stage1_model)
        network.load_state_dict(self.weights)
        return network.float().to(device).eval().requires_grad_(False)


def load_trained(where: FolderLike, report: Callable[[str], None], *, raw: bool = False) -> Trained:
    """The newest good generator at `where`: a run, a folder with stages below it, a checkpoint, or an exported folder.

    Raises UserError when there is none. `report` gets a line about each damaged checkpoint that was passed over.
    """
    asked = Folder.at(where)
    if is_exported(asked):
        return _from_exported(asked, raw=raw)
    found: FoundCheckpoint | None
    if is_checkpoint(asked):
        found = read_checkpoint(asked)
        folder = RunFolder(asked.parent.parent)  # RUN/checkpoints/step-000001000
    else:
        folder = find_run(asked)
        found = find_newest(folder.checkpoints, report)
    if found is None:
        raise UserError(f"{folder.url} has no checkpoint yet; train it, or wait for its first checkpoint")
    return trained_from(found, folder, raw=raw)


def trained_from(found: FoundCheckpoint, folder: RunFolder, *, raw: bool = False) -> Trained:
    """The generator in the checkpoint `found` of the run `folder`; UserError when it holds none."""
    content = from_bytes(found.data, found.url)
    state = content["state"]
    weights = state["ema"]
    if raw:
        trained = state["generator"]["network"]
        weights = _part(trained, "generator") or trained  # it may be trained with its reader
    if names := non_finite(weights):
        raise UserError(
            f"checkpoint {found.url} holds numbers that are not finite ({len(names)} tensors, {names[0]} among them): "
            "nothing can be generated with it; take an earlier checkpoint, or train again with a lower learning rate"
        )
    return Trained(
        folder=folder,
        checkpoint=found.url,
        step=found.step,
        **_described(content, found.url),
        weights=weights,
        kind="raw" if raw else "ema",
        discriminator_weights=_part(state["discriminator"]["network"], "discriminator"),
    )


def _from_exported(folder: Folder, *, raw: bool) -> Trained:
    content, weights = read_exported(folder)
    if (kind := content["weights"]) != ("raw" if raw else "ema"):
        raise UserError(f"{folder} was exported with the {kind} weights alone; take --weights {kind}")
    return Trained(
        folder=RunFolder(folder),
        checkpoint=folder.url,
        step=content["step"],
        **_described({**content, "config": json.dumps(content["config"])}, folder.url_of(CONFIG)),
        weights=weights,
        kind=kind,
        discriminator_weights={},
    )


def _described(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What a checkpoint and an exported folder say alike of their network."""
    return {
        "config": from_json(content["config"], where),
        "stage1_model": ModelConfig(**content["stage1_model"]) if content["stage1_model"] else None,
        "data": DataIdentity(**content["data"]),
    }


def load_discriminator(trained: Trained, device: torch.device) -> Discriminator:
    """The discriminator that was trained against `trained`, in eval mode on `device`, in float32.

    Raises UserError where there is none.
    """
    if not trained.discriminator_weights:
        raise UserError(f"{trained.checkpoint} is an exported generator, without its discriminator; give the run")
    trained.check_allowed()
    network = build_discriminator(trained.config.model, trained.data.text_dim)
    network.load_state_dict(trained.discriminator_weights)
    return network.float().to(device).eval().requires_grad_(False)


def _part(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The weights of the part called `name` of a network, under that part's own names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
