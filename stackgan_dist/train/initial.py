"""`--init-from`: a training that starts from another one's weights instead of fresh ones.

The generator starts from the other's moving average, which the new average starts from too, the discriminator from the
other's, where it has one. What has another shape here, as layers that read a text of another width do, starts fresh.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stackgan_dist.config import Config
from stackgan_dist.distributed.process_group import Ranks, broadcast_bytes, main_first
from stackgan_dist.errors import UserError
from stackgan_dist.models import ModelConfig
from stackgan_dist.runs.checkpoint import from_bytes, to_bytes
from stackgan_dist.runs.trained import load_trained
from stackgan_dist.storage.folder import Folder
from stackgan_dist.train.networks import build_networks
from stackgan_dist.train.state import TrainingState

_RECORD = "initial.json"
_NAMED = 8


@dataclass(frozen=True)
class InitialWeights:
    """What a training takes over from another one, by the names in its own networks."""

    source: str
    """The checkpoint or exported folder."""
    step: int
    """Of the source."""
    generator: dict[str, torch.Tensor]
    discriminator: dict[str, torch.Tensor]
    fresh: tuple[str, ...]
    """The weights that start anew, as "generator.conditioning.fc.weight"."""

    def put_into(self, state: dict[str, Any]) -> None:
        """Take the place of the same weights in the `state` of a fresh TrainingState."""
        for network, weights in (
            (state["generator"]["network"], self.generator),
            (state["ema"], self.generator),
            (state["discriminator"]["network"], self.discriminator),
        ):
            for name, value in weights.items():
                # A network may be trained as a part of another one: with its reader, with its contrastive head.
                key = next(key for key in (name, f"generator.{name}", f"discriminator.{name}") if key in network)
                network[key] = value.to(network[key].dtype)

    def describe(self) -> list[str]:
        """What there is to say of it."""
        taken = len(self.generator) + len(self.discriminator)
        lines = [f"starts from {taken} weights of {self.source} (step {self.step:,})"]
        if self.fresh:
            more = f" and {len(self.fresh) - _NAMED} more (all in {_RECORD})" if len(self.fresh) > _NAMED else ""
            lines.append(f"{len(self.fresh)} weights start anew: {', '.join(self.fresh[:_NAMED])}{more}")
        return lines

    def record(self, run: Folder) -> None:
        """Write into the run's folder what it started from."""
        content = {
            "source": self.source,
            "step": self.step,
            "taken": [
                *(f"generator.{name}" for name in self.generator),
                *(f"discriminator.{n}" for n in self.discriminator),
            ],
            "fresh": list(self.fresh),
        }
        run.write(_RECORD, (json.dumps(content, indent=1) + "\n").encode())


def find_initial(config: Config, text_dim: int, stage1: ModelConfig | None) -> InitialWeights:
    """The weights of `config.init_from` that fit the networks of `config`.

    Args:
        config: a run that was validated.
        text_dim: width of its text embeddings.
        stage1: for Stage-II: what the frozen Stage-I inside is made of, whose weights --stage1 gives.

    Raises UserError where there is nothing at `config.init_from`, or nothing of it fits.
    """
    assert config.init_from is not None
    try:
        trained = load_trained(config.init_from, lambda _: None)
    except UserError as error:
        raise UserError(f"--init-from {config.init_from}: {error}") from error
    ours, theirs = config.model, trained.config.model
    if (ours.family, ours.stage) != (theirs.family, theirs.stage):
        raise UserError(
            f"--init-from {config.init_from} is a {theirs.title} model, this run is {ours.title}; give one of the same "
            "family and stage"
        )
    with torch.device("meta"):
        networks = build_networks(config, text_dim, stage1)
    frozen = "stage1." if ours.stage == 2 else None
    generator, fresh = _fitting(networks.generator.state_dict(), trained.weights, "generator", frozen)
    matching = networks.discriminator.state_dict()
    inside = {name.removeprefix("discriminator."): value for name, value in matching.items()}
    discriminator, fresh_too = _fitting(inside, trained.discriminator_weights, "discriminator", None)
    if not any(value.dim() > 1 for value in generator.values()):
        raise UserError(
            f"--init-from {config.init_from}: no layer of its generator has the shape of one here; compare "
            f"--model.generator-width ({theirs.generator_width} there, {ours.generator_width} here) and the other "
            "options of --model"
        )
    return InitialWeights(trained.checkpoint, trained.step, generator, discriminator, (*fresh, *fresh_too))


def start_from(initial: InitialWeights | None, state: TrainingState, run: Folder, ranks: Ranks) -> list[str]:
    """Put the weights that rank 0 found into the fresh `state` of every rank; returns what there is to say of it.

    Raises UserError, on every rank, where rank 0 found none, since the run had checkpoints of its own.
    """
    content = state.state_dict()

    def own() -> None:
        if initial is None:
            raise UserError(
                f"no checkpoint of {run} can be read, and --init-from is for a run that has none; remove them to start "
                "again from other weights"
            )
        initial.put_into(content)
        initial.record(run)

    main_first(own, ranks)
    data = broadcast_bytes(to_bytes(content) if ranks.is_main else None, ranks)
    assert data is not None
    state.load_state_dict(from_bytes(data, "what rank 0 sent"))
    return initial.describe() if initial is not None else []


def _fitting(
    ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor], network: str, frozen: str | None
) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Those of `theirs` with a name and shape of `ours`, and the names of ours that are left, below `network`."""
    taken, fresh = {}, []
    for name, value in ours.items():
        if frozen is not None and name.startswith(frozen):
            continue
        if name in theirs and theirs[name].shape == value.shape:
            taken[name] = theirs[name]
        else:
            fresh.append(f"{network}.{name}")
    return taken, fresh
