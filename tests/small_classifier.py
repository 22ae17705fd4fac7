"""The stand-in classifier at a twelfth of its work, and little noise, where it does not matter what it sees."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from unittest.mock import patch

from distributed.forked import open_door

from stackgan_dist.classifiers import classifier
from stackgan_dist.scores import real_side


@contextlib.contextmanager
def small_classifier() -> Iterator[None]:
    """EfficientNet-Lite0 at 64 pixels, not 224; 8 pictures of noise, not 200."""
    whole = classifier._efficientnet_lite0
    small = lambda *given: dataclasses.replace(whole(*given), size=64)  # noqa: E731
    with patch.object(classifier, "_efficientnet_lite0", small), patch.object(real_side, "NOISE_PICTURES", 8):
        yield


def open_door_with_it(module: str, *arguments: str) -> None:
    """A command on a rank, for run_forked."""
    with small_classifier():
        open_door(module, *arguments)
