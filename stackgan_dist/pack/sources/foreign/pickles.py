"""Pickles of plain data and NumPy arrays, read without executing anything that they name.

A pickle is a program, and what it may call are the globals that the reader lets it find. Here these are inert
stand-ins of this module: a dtype is a checked string, an array is made of checked bytes. NumPy's own reconstruction
is not among them. Python 2 wrote the files that matter (the splits and embeddings of the StackGAN data release), so
byte strings come as latin-1 text.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from typing import Any

import numpy as np

from stackgan_dist.errors import UserError

_NUMBERS = re.compile(r"[biuf][1248]")


def read_pickle(data: bytes, where: str) -> Any:
    """The lists, dictionaries, strings, numbers and NumPy arrays (of numbers) that the pickle `data` holds.

    Raises UserError naming `where` for everything else: a pickle that names other code, or is damaged.
    """
    try:
        return _settled(_Reader(io.BytesIO(data), encoding="latin1").load())
    except UserError as error:
        raise UserError(f"{where} is not read: {error}") from error
    except Exception as error:  # damaged bytes drive the interpreter of pickles into any error there is
        raise UserError(f"{where} is not a pickle of plain data: {type(error).__name__}: {error}") from error


class _Dtype:
    """In place of numpy.dtype: remembers which one it would be."""

    def __init__(self, code: str = "", *_: object) -> None:
        self._code = code
        self._order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def dtype(self) -> np.dtype[Any]:
        """The real one; UserError for anything but numbers."""
        if (
            not isinstance(self._code, str)
            or not _NUMBERS.fullmatch(self._code)
            or self._order not in ("<", ">", "=", "|")
        ):
            raise UserError(f"it holds an array of {self._code!r}; numbers were expected")
        return np.dtype(self._order.replace("|", "=") + self._code)


class _Array:
    """In place of numpy.ndarray: remembers shape, dtype and bytes."""

    def __init__(self, *_: object) -> None:
        self._state: tuple[Any, ...] = ()

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._state = state

    def array(self) -> np.ndarray[Any, Any]:
        """The real one; UserError when its parts do not fit together."""
        if len(self._state) != 5:
            raise UserError("it holds an array without content")
        _, shape, dtype, fortran, content = self._state
        kind = dtype.dtype() if isinstance(dtype, _Dtype) else None
        data = _bytes(content)
        if kind is None or not _is_shape(shape) or math.prod(shape) * kind.itemsize != len(data):
            raise UserError(f"it holds an array of shape {shape!r} whose bytes do not fit it")
        return np.frombuffer(data, dtype=kind).reshape(shape, order="F" if fortran else "C")


def _array(*_: object) -> _Array:
    return _Array()


def _from_buffer(content: Any, dtype: _Dtype, shape: tuple[int, ...], order: str) -> _Array:
    array = _Array()
    array.__setstate__((1, shape, dtype, order == "F", content))
    return array


def _scalar(dtype: _Dtype, content: Any) -> int | float | bool:
    kind, data = dtype.dtype(), _bytes(content)
    if len(data) != kind.itemsize:
        raise UserError("it holds a number whose bytes do not fit it")
    number: int | float | bool = np.frombuffer(data, dtype=kind)[0].item()
    return number


def _encoded(text: str, encoding: str) -> bytes:
    """In place of _codecs.encode, by which Python 3 writes byte strings for Python 2."""
    if encoding not in ("latin1", "latin-1"):
        raise UserError(f"it encodes text as {encoding!r}")
    return text.encode("latin-1")


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encoded,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise UserError(f"it names the code {module}.{name}; only plain data and NumPy arrays are read")
        return _STAND_INS[module, name]


def _bytes(content: Any) -> bytes:
    if isinstance(content, str):
        return content.encode("latin-1")
    if isinstance(content, bytes | bytearray):
        return bytes(content)
    raise UserError(f"it holds an array of {type(content).__name__} objects; numbers were expected")


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and all(type(length) is int and length >= 0 for length in shape)


def _settled(value: Any) -> Any:
    """`value` with real arrays in place of the stand-ins."""
    if isinstance(value, _Array):
        return value.array()
    if isinstance(value, list | tuple):
        return [_settled(item) for item in value]
    if isinstance(value, dict):
        return {key: _settled(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bytes | bytearray | int | float | bool):
        return value
    raise UserError(f"it holds a {type(value).__name__}; only plain data and NumPy arrays are read")
