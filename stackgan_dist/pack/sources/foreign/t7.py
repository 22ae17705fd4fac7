"""Torch 7's binary serialisation (.t7): tables, strings, numbers and tensors. Its functions are refused, not run.

The layout is that of torch7's File.lua: little-endian; an int32 says what follows, and tables, objects and
functions carry a number by which they are referred to again.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np

from stackgan_dist.errors import UserError

_NIL, _NUMBER, _STRING, _TABLE, _OBJECT, _BOOLEAN = range(6)
_DEEPEST = 64

_STORAGES: dict[str, np.dtype[Any]] = {
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Long": np.dtype("<i8"),
    "Int": np.dtype("<i4"),
    "Short": np.dtype("<i2"),
    "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"),
}


def read_t7(data: bytes, where: str) -> Any:
    """What the file `data` holds: dictionaries (tables), bytes (strings), floats, booleans and arrays (tensors).

    Raises UserError naming `where` when it is damaged, or holds functions or objects that are not tensors.
    """
    try:
        return _Reader(data).value(0)
    except (struct.error, ValueError, IndexError, KeyError, TypeError) as error:
        raise UserError(f"{where} is not a Torch file (.t7), or is damaged: {error}") from error
    except UserError as error:
        raise UserError(f"{where} is not read: {error}") from error


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._seen: dict[int, Any] = {}

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise UserError(f"its tables are nested more than {_DEEPEST} deep")
        kind = self._int()
        if kind == _NIL:
            return None
        if kind == _NUMBER:
            return self._unpack("<d")
        if kind == _STRING:
            return self._bytes()
        if kind == _BOOLEAN:
            return self._int() != 0
        if kind not in (_TABLE, _OBJECT):
            raise UserError(f"it holds a value of type {kind} (6 to 8 are functions); only data are read")
        number = self._int()
        if number in self._seen:
            return self._seen[number]
        if kind == _TABLE:
            table: dict[Any, Any] = {}
            self._seen[number] = table
            for _ in range(self._int()):
                key = self.value(depth + 1)
                table[key] = self.value(depth + 1)
            return table
        self._seen[number] = self._object(depth)
        return self._seen[number]

    def _object(self, depth: int) -> Any:
        name = self._bytes()
        if name.startswith(b"V "):  # before versions there was the class alone
            name = self._bytes()
        package, _, kind = name.decode("latin-1").partition(".")
        if package == "torch" and (numbers := _STORAGES.get(kind.removesuffix("Tensor"))):
            return self._tensor(numbers, depth)
        if package == "torch" and (numbers := _STORAGES.get(kind.removesuffix("Storage"))):
            return self._storage(numbers)
        raise UserError(f"it holds an object of class {name.decode('latin-1')!r}; only tensors of numbers are read")

    def _tensor(self, kind: np.dtype[Any], depth: int) -> np.ndarray[Any, Any]:
        dims = self._int()
        if not 0 <= dims <= 16:
            raise ValueError(f"a tensor of {dims} dimensions")
        shape, strides = (tuple(self._long() for _ in range(dims)) for _ in range(2))
        offset = self._long() - 1
        storage = self.value(depth + 1)
        if storage is None or math.prod(shape) == 0 or dims == 0:
            return np.empty(shape if dims else (0,), dtype=kind)
        if not isinstance(storage, np.ndarray) or storage.dtype != kind:
            raise ValueError("a tensor without a storage of its own kind")
        last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
        if min((*shape, *strides, offset)) < 0 or last >= len(storage):
            raise ValueError(f"a tensor of shape {shape} that reaches beyond its storage of {len(storage)}")
        steps = tuple(stride * kind.itemsize for stride in strides)
        return np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False).copy()

    def _storage(self, kind: np.dtype[Any]) -> np.ndarray[Any, Any]:
        count = self._long()
        return np.frombuffer(self._take(count * kind.itemsize), dtype=kind)

    def _int(self) -> int:
        return int(self._unpack("<i"))

    def _long(self) -> int:
        return int(self._unpack("<q"))

    def _bytes(self) -> bytes:
        return self._take(self._int())

    def _unpack(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, count: int) -> bytes:
        if count < 0 or self._at + count > len(self._data):
            raise ValueError(f"{count} bytes are announced at {self._at}, the file has {len(self._data)}")
        self._at += count
        return self._data[self._at - count : self._at]
