"""A trained generator, ready to use: what `generate`, the scores and Stage-II start from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from stackgan_dist.config import Config, from_json
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
from stackgan_dist.runs.folder import DataIdentity, RunFolder, find_run
from stackgan_dist.storage.folder import Folder, FolderLike
from stackgan_dist.text import TextEncoder, load_encoder


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
    """Of the generator: its moving average, or the raw ones."""
    discriminator_weights: dict[str, torch.Tensor]
    """Of the discriminator that it was trained against."""

    def check_allowed(self) -> None:
        """Raises UserError where its family is a user's own, and importing it is not allowed."""
        if self.config.model.is_own:
            check_allowed(self.config.model.family, f"the checkpoint {self.checkpoint}")

    def encoder(self) -> TextEncoder:
        """The encoder of the texts that it was trained on; UserError where none is for new sentences, or it is lost."""
        return load_encoder(self.data.text_encoder, (self.folder.root, self.config.data.url))

    def generator(self, device: torch.device) -> Generator:
        """The generator in eval mode on `device`, in float32."""
        self.check_allowed()
        network = build_generator(self.config.model, self.data.text_dim, self.stage1_model)
        network.load_state_dict(self.weights)
        return network.float().to(device).eval().requires_grad_(False)


def load_trained(where: FolderLike, report: Callable[[str], None], *, raw: bool = False) -> Trained:
    """The newest good generator of the run at `where` (a run folder, one with stages below it, or a checkpoint).

    Raises UserError when there is none. `report` gets a line about each damaged checkpoint that was passed over.
    """
    asked = Folder.at(where)
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
        config=from_json(content["config"], found.url),
        stage1_model=ModelConfig(**content["stage1_model"]) if content["stage1_model"] else None,
        data=DataIdentity(**content["data"]),
        weights=weights,
        discriminator_weights=_part(state["discriminator"]["network"], "discriminator"),
    )


def load_discriminator(trained: Trained, device: torch.device) -> Discriminator:
    """The discriminator that was trained against `trained`, in eval mode on `device`, in float32."""
    trained.check_allowed()
    network = build_discriminator(trained.config.model, trained.data.text_dim)
    network.load_state_dict(trained.discriminator_weights)
    return network.float().to(device).eval().requires_grad_(False)


def _part(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The weights of the part called `name` of a network, under that part's own names."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
