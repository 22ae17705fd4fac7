"""What makes two starts of a GAN's training the same run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stackgan_dist.config import Config, differences, from_json, to_json
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
        changed = differences(self.config, from_json(content["config"], where))
        if (theirs := content["data"]["digest"]) != self.data.digest:
            changed.append(f"digest of the data's index: {self.data.digest[:12]} here, {theirs[:12]} there")
        return changed
