"""Foreign files are read as data, and nothing that they name is run."""

import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stackgan_dist.errors import UserError
from stackgan_dist.pack.sources.foreign.pickles import read_pickle
from stackgan_dist.pack.sources.foreign.t7 import read_t7

PYTHON2_SCALARS = (  # two numpy.int64 as Python 2 wrote them: class_info.pickle of the StackGAN data release
    rb"(lp0"
    b"\ncnumpy.core.multiarray\nscalar\np1\n(cnumpy\ndtype\np2\n(S'i8'\np3\nI0\nI1\ntp4\nRp5\n(I3\nS'<'\np6\n"
    b"NNNI-1\nI-1\nI0\ntp7\nbS'\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\np8\ntp9\nRp10\nag10\na."
)


def test_python_2_scalars() -> None:
    assert read_pickle(PYTHON2_SCALARS, "x") == [2, 2]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "u1"])
def test_arrays_survive(protocol: int, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for given in (array, np.asfortranarray(array)):
        found = read_pickle(pickle.dumps([given, {"n": np.float32(0.5)}], protocol=protocol), "x")
        np.testing.assert_array_equal(found[0], array)
        assert found[1] == {"n": 0.5}


class _Call:
    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self._reduced


def test_a_pickle_executes_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    for evil in (_Call(os.system, f"touch {victim}"), _Call(eval, "1"), _Call(getattr, "", "join"), [_Call(exec, "")]):
        for protocol in (0, 2, 4):
            with pytest.raises(UserError, match="x is not read: it names the code"):
                read_pickle(pickle.dumps(evil, protocol=protocol), "x")
    assert not victim.exists()
    # through what is let in, too: an array of objects, and a dtype that is none
    with pytest.raises(UserError, match="x is not read"):
        read_pickle(pickle.dumps(np.array([{}, None], dtype=object)), "x")
    with pytest.raises(UserError, match=r"x is not"):
        read_pickle(b"cnumpy\ndtype\n(S'O8'\ntR.", "x")
    with pytest.raises(UserError, match=r"x is not"):
        read_pickle(b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "x")


def test_damaged_pickles_are_refused() -> None:
    whole = pickle.dumps([np.arange(100.0), "text"], protocol=2)
    for data in (b"", b"nothing", whole[:-30], whole.replace(b"K\x64", b"K\x65")):
        with pytest.raises(UserError, match="x is not"):
            read_pickle(data, "x")


def _t7(value: Any, number: list[int]) -> bytes:
    """`value` as torch7 writes it: an independent writer, for dictionaries, strings, numbers and float tensors."""
    if isinstance(value, float):
        return struct.pack("<id", 1, value)
    if isinstance(value, bytes):
        return struct.pack("<ii", 2, len(value)) + value
    number[0] += 1
    if isinstance(value, dict):
        head = struct.pack("<iii", 3, number[0], len(value))
        return head + b"".join(_t7(key, number) + _t7(item, number) for key, item in value.items())
    head = struct.pack("<ii", 4, number[0])
    for text in (b"V 1", b"torch.FloatTensor"):
        head += struct.pack("<i", len(text)) + text
    strides = [step // 4 for step in value.strides]
    head += struct.pack("<i", value.ndim) + struct.pack(f"<{2 * value.ndim}q", *value.shape, *strides)
    number[0] += 1
    head += struct.pack("<qii", 1, 4, number[0])
    for text in (b"V 1", b"torch.FloatStorage"):
        head += struct.pack("<i", len(text)) + text
    return head + struct.pack("<q", value.size) + value.tobytes()


def test_t7_tables_and_tensors() -> None:
    rows = np.arange(30, dtype="<f4").reshape(10, 3)
    data = _t7({b"txt": rows, b"img": b"a.jpg", 1.0: {b"deep": 2.0}}, [0])
    found = read_t7(data, "x")
    np.testing.assert_array_equal(found[b"txt"], rows)
    assert (found[b"img"], found[1.0]) == (b"a.jpg", {b"deep": 2.0})


def test_t7_refuses_functions_lies_and_damage() -> None:
    whole = _t7({b"txt": np.ones((2, 3), dtype="<f4")}, [0])
    with pytest.raises(UserError, match="6 to 8 are functions"):
        read_t7(struct.pack("<iii", 6, 1, 4) + b"code", "x")
    with pytest.raises(UserError, match=r"class 'nn\.Linear'"):
        read_t7(struct.pack("<iii", 4, 1, 3) + b"V 1" + struct.pack("<i", 9) + b"nn.Linear", "x")
    for end in range(len(whole)):
        with pytest.raises(UserError, match=r"x is not"):
            read_t7(whole[:end], "x")
    beyond = whole.replace(struct.pack("<qq", 2, 3), struct.pack("<qq", 200, 3))
    with pytest.raises(UserError, match="reaches beyond its storage"):
        read_t7(beyond, "x")
    nested = struct.pack("<i", 1)
    buffer = io.BytesIO()
    for depth in range(100):
        buffer.write(struct.pack("<iiiid", 3, depth + 1, 1, 1, 1.0))
    with pytest.raises(UserError, match="nested"):
        read_t7(buffer.getvalue() + nested, "x")
