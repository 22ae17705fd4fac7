"""How a picture that is not square becomes one, as people choose it with --options fit=crop or fit=pad."""

from __future__ import annotations

from typing import Literal, get_args

from stackgan_dist.errors import UserError

Fit = Literal["crop", "pad"]
"""The central square; or all of it, with white beside it."""


def check_fit(source: str, fit: str) -> None:
    """Raises UserError for a way that `source` does not know."""
    if fit not in get_args(Fit):
        raise UserError(f"{source}: fit is {fit!r}; choose one of {', '.join(get_args(Fit))}")
