"""A run's page in Weights & Biases; with WANDB_MODE=offline its files, for `wandb sync` later."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import wandb
from PIL import Image

from stackgan_dist.errors import UserError
from stackgan_dist.runs.loggers import Logger, Opening, RunState


class WandbPage:
    """See Logger. Project, entity and server are those of wandb's own variables (WANDB_PROJECT, ...)."""

    def __init__(self, opening: Opening) -> None:
        mode = os.environ.get("WANDB_MODE", "online")
        if mode == "online" and not wandb.api.api_key:  # it would ask on the terminal
            raise UserError("W&B knows no API key here: set WANDB_API_KEY, or WANDB_MODE=offline and sync later")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "stackgan_dist"),
            name=opening.run,
            id=opening.id,
            resume="allow" if opening.id else None,
            dir=os.environ.get("WANDB_DIR") or opening.folder,
            config=dict(opening.config),
            settings=wandb.Settings(console="off", silent=True),
        )
        self.id: str = self._run.id
        self._reported = max(opening.reported, self._run.step - 1) if opening.id else 0

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """See Logger."""
        if step > self._reported:
            self._run.log(dict(values), step=step)

    def text(self, tag: str, content: str) -> None:
        """See Logger: a part of the page's summary."""
        self._run.summary[tag] = content

    def picture(self, tag: str, png: bytes, step: int) -> None:
        """See Logger."""
        if step > self._reported:
            self._run.log({tag: wandb.Image(Image.open(io.BytesIO(png)))}, step=step)

    def close(self, state: RunState) -> None:
        """See Logger."""
        if state == "preempted" and not self._run.offline:
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if state == "done" else 1)


def open_page(opening: Opening) -> Logger:
    """The page of this run: a new one, or that of an earlier start."""
    return WandbPage(opening)
