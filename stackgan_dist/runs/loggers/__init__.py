"""Where a run's curves and pictures go beside TensorBoard: one small protocol, and the services that speak it.

`--run.log wandb` and `--run.log mlflow` open one each. What they are given is what TensorBoard gets. They work in the
background (background.py): a service that is slow, away or broken costs its page, and no step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from stackgan_dist.config import LoggerName
from stackgan_dist.errors import UserError

RunState = Literal["done", "preempted", "failed"]
"""How a start ended, for services that show it."""


@dataclass(frozen=True)
class Opening:
    """What a service is opened with."""

    run: str
    """The run's name."""
    config: Mapping[str, Any]
    """The resolved configuration, flat: {"training.batch_size": 64}."""
    folder: Path | None
    """The run's folder, for what the service writes on this node; None where the run is on an object store."""
    id: str | None
    """What the service called this run when an earlier start opened it; None: nobody has."""
    reported: int
    """The last step that earlier starts reported: what lies before it is there already."""


class Logger(Protocol):
    """A page about one run in some service. Every method may raise anything."""

    id: str
    """By which a later start goes on with the same page."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """A point in each of the curves. Steps rise, also from one start to the next."""
        ...

    def text(self, tag: str, content: str) -> None:
        """A text in Markdown."""
        ...

    def picture(self, tag: str, png: bytes, step: int) -> None:
        """A picture, as the content of a PNG file."""
        ...

    def close(self, state: RunState) -> None:
        """End this start's part of the page."""
        ...


_MODULES = {"wandb": "stackgan_dist.runs.loggers.wandb_page", "mlflow": "stackgan_dist.runs.loggers.mlflow_page"}
"""Each has `open_page`; none is imported before a run has something to show."""


def check_installed(names: Collection[LoggerName]) -> None:
    """Raise UserError where the package of a service is not installed; nothing is imported."""
    for name in names:
        if find_spec(name) is None:
            raise UserError(f"--run.log {name} needs the {name} extra: pip install 'stackgan_dist[{name}]'")


def open_page(name: LoggerName, opening: Opening) -> Logger:
    """The page of a run in the service called `name`: a new one, or that of an earlier start."""
    page: Logger = import_module(_MODULES[name]).open_page(opening)
    return page
