"""A generator as ONNX, for any number of rows, held against torch by onnxruntime."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stackgan_dist.data.rows import gaussian
from stackgan_dist.errors import UserError
from stackgan_dist.models import Generator, ModelConfig
from stackgan_dist.randomness import Stream

_EQUAL = 1e-5
_STEEP, _MOST = 4.0, 2e-3
"""A network so steep that rounding changes more may differ by so many times that, and never by more than a thousandth
of the range of the pictures' values, which is a quarter of a step of 8 bits."""
_ROWS = 2
"""Of the rows that it is exported with; of one, torch takes the number for fixed."""


class _Tensors(nn.Module):
    """The generator with tensors alone for its outputs, and without inputs that it does not read."""

    def __init__(self, generator: Generator, model: ModelConfig) -> None:
        super().__init__()
        self.generator = generator
        self.condition_dim = model.condition_dim

    def forward(self, text: Tensor, z: Tensor, eps: Tensor | None = None, place: Tensor | None = None) -> Any:
        if eps is None:
            eps = text.new_zeros(text.shape[0], 0, self.condition_dim)
        fakes = self.generator(text, z, eps, *(() if place is None else (place,)))
        return fakes.image if fakes.low_resolution is None else (fakes.image, fakes.low_resolution)


def example_inputs(model: ModelConfig, text_dim: int, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Inputs of a generator by their names, with numbers drawn from a standard normal and places inside the picture.

    text (rows, text_dim), z (rows, noise_dim); eps (rows, augmentations, condition_dim) and place (rows,
    *placement.shape) where the model has them.
    """

    def drawn(stream: Stream, *shape: int) -> Tensor:
        values = gaussian(seed, stream, 0, range(rows), int(np.prod(shape)))
        return torch.from_numpy(values).view(rows, *shape)

    inputs = {"text": drawn(Stream.SCORE_CAPTION, text_dim), "z": drawn(Stream.SCORE_NOISE, model.noise_dim)}
    if model.augmentations:
        inputs["eps"] = drawn(Stream.SCORE_CONDITIONING, model.augmentations, model.condition_dim)
    if model.placement is not None:
        inputs["place"] = torch.full((rows, *model.placement.shape), 0.5)
    return inputs


def to_onnx(generator: Generator, model: ModelConfig, text_dim: int, about: Mapping[str, Any]) -> bytes:
    """The content of an ONNX file: (text, z[, eps][, place]) -> image[, low_resolution], for any number of rows.

    `about` goes into its metadata as JSON. Raises UserError where the extra `export` is not installed.
    """
    try:
        import onnxscript  # noqa: F401  torch.onnx writes with it
    except ImportError as error:
        raise _not_installed(error) from error
    inputs = example_inputs(model, text_dim, _ROWS)
    outputs = ["image", *(["low_resolution"] if model.stage == 2 else [])]
    batch = torch.export.Dim("batch")
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            _Tensors(generator, model).eval(),
            kwargs=inputs,
            dynamo=True,
            dynamic_shapes={name: {0: batch} for name in inputs},
            input_names=list(inputs),
            output_names=outputs,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props["stackgan_dist"] = json.dumps(about)
    content: bytes = program.model_proto.SerializeToString()
    return content


class Difference(NamedTuple):
    """Largest differences between pictures, whose values are in [-1, 1]."""

    from_torch: float
    """Between onnxruntime and torch, both in float32."""
    of_rounding: float
    """Between torch in float32 and in float64: what rounding alone makes of this network."""

    @property
    def bound(self) -> float:
        """What `from_torch` may be: 1e-5, or a few times what rounding does to a network this steep, to a ceiling."""
        return min(max(_EQUAL, _STEEP * self.of_rounding), _MOST)

    @property
    def is_rounding(self) -> bool:
        """Whether it is the same function."""
        return self.from_torch <= self.bound

    def describe(self) -> str:
        """What was found, what was allowed, and why."""
        why = "" if self.bound == _EQUAL else f", for rounding alone makes {self.of_rounding:.2g} of this network"
        return f"differ by at most {self.from_torch:.2g} (allowed: {self.bound:.2g}{why})"


def compare(content: bytes, generator: Generator, model: ModelConfig, text_dim: int, rows: int) -> Difference:
    """Hold what onnxruntime makes of `rows` rows with the file `content` against `generator`.

    Raises UserError where the extra `export` is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise _not_installed(error) from error
    inputs = example_inputs(model, text_dim, rows, seed=1)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    single, double = (
        _outputs(_Tensors(network, model).eval(), {name: value.to(dtype) for name, value in inputs.items()})
        for network, dtype in ((generator, torch.float32), (copy.deepcopy(generator).double(), torch.float64))
    )
    return Difference(
        max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(found, single, strict=True)),
        max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(single, double, strict=True)),
    )


@torch.no_grad()
def _outputs(network: nn.Module, inputs: Mapping[str, Tensor]) -> list[NDArray[Any]]:
    outputs = network(**inputs)
    return [output.numpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _not_installed(error: ImportError) -> UserError:
    return UserError(f"--to onnx needs a package that is not installed ({error}): pip install 'stackgan_dist[export]'")


@contextmanager
def _quiet() -> Iterator[None]:
    """torch.onnx warns of torchvision, which is not needed, and of what is to change in itself."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
