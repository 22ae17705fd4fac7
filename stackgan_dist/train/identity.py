"""What makes two starts of a GAN's training the same run."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stackgan_dist import __version__
from stackgan_dist.config import Config, differences, flatten, from_json, to_json
from stackgan_dist.distributed.agreement import code_digest
from stackgan_dist.importable import source_digest
from stackgan_dist.models import ModelConfig
from stackgan_dist.runs.folder import DataIdentity


@dataclass(frozen=True)
class RunIdentity:
    """See Identity of runs/keeper.py."""

    config: Config
    data: DataIdentity
    stage1_model: ModelConfig | None
    """For Stage-II: what the frozen Stage-I inside is made of; its weights are in the checkpoint."""

    def content(self) -> dict[str, Any]:
        """See Identity."""
        return {
            "config": to_json(self.config),
            "stage1_model": dataclasses.asdict(self.stage1_model) if self.stage1_model else None,
            "data": dataclasses.asdict(self.data),
        }

    def differences(self, content: Mapping[str, Any], where: str) -> list[str]:
        """See Identity."""
        if "config" not in content:
            return ["what is trained: a generator here, something else there"]
        changed = differences(self.config, from_json(content["config"], where))
        if (theirs := content["data"]["digest"]) != self.data.digest:
            changed.append(f"digest of the data's index: {self.data.digest[:12]} here, {theirs[:12]} there")
        return changed

    def facts(
        self, stage1_weights: Mapping[str, torch.Tensor] | None, engine_settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """What all ranks must have been started with, as JSON values by name.

        Args:
            stage1_weights: of the frozen Stage-I inside, for Stage-II.
            engine_settings: of the engine's own configuration file, if it has one.
        """
        fields = flatten(dataclasses.asdict(self.config))
        return {
            **{name: value for name, value in fields.items() if name not in _PER_NODE},
            "data index": self.data.digest,
            "Stage-I weights": _digest(stage1_weights) if stage1_weights else None,
            "engine settings": dict(engine_settings),
            "own parts": {name: source_digest(name) for name in self.config.own_parts},
            "version": f"{__version__} ({code_digest()})",
            "torch": torch.__version__,
        }


_PER_NODE = ("data.url", "data.cache", "data.cache_gb", "data.memory_gb", "data.workers", "stage1", "deepspeed_config")
"""Fields in which nodes may differ: where the same data lie, and what a node has to hold them."""


def _digest(weights: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode() + tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
