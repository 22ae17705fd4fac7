"""Ranges: what is inside, how they are told, and what a field at fault is called."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
import tyro

from stackgan_dist.errors import UserError
from stackgan_dist.ranges import Range, Seed, Timeout, check_fields, fields_of


@dataclass(frozen=True)
class Inner:
    batch_size: Annotated[int, Range(at_least=1)] = 64
    share: Annotated[float, Range(at_least=0, below=1)] = 0.5
    is_on: bool = True


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    flat: Annotated[Inner, tyro.conf.arg(name="")] = field(default_factory=Inner)
    seed: Seed = 0
    timeout_s: Timeout = 300.0
    limit: Annotated[int, Range(at_least=1, at_most=9)] | None = None
    sizes: Annotated[tuple[Annotated[int, Range(at_least=8)], ...] | None, tyro.conf.arg(metavar="PX")] = (8, 9)
    names: tuple[str, ...] = ("", "x")
    url: str = "data"
    cache: str | None = None
    engine: Literal["ddp", 2] = "ddp"


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "told"),
    [
        (Range(at_least=1), [1, 2, 1e300], [0, 0.999, -1], "at least 1"),
        (Range(above=0), [5e-324, 1], [0, -1], "above 0"),
        (Range(at_least=0, below=1), [0, 0.999], [-1e-9, 1], "at least 0 and below 1"),
        (Range(above=0, at_most=0.5), [0.1, 0.5], [0, 0.51], "above 0 and at most 0.5"),
        (Range(at_least=1, at_most=64), [1, 64], [0, 65], "from 1 to 64"),
    ],
)
def test_a_range(limits: Range, inside: list[float], outside: list[float], told: str) -> None:
    assert all(number in limits for number in inside)
    assert not any(number in limits for number in [*outside, float("nan")])
    assert str(limits) == told


def test_what_is_in_its_range_passes() -> None:
    check_fields(Outer())
    check_fields(Outer(limit=9, sizes=None, cache="x", engine=2, timeout_s=3))
    check_fields(Outer(seed=2**63 - 1, inner=Inner(1, 0, False)))


_NAN, _INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inner": Inner(batch_size=0)}, "--inner.batch-size is 0, it must be at least 1"),
        ({"flat": Inner(batch_size=0)}, "--batch-size is 0, it must be at least 1"),
        ({"inner": Inner(share=1.0)}, "--inner.share is 1.0, it must be at least 0 and below 1"),
        ({"inner": Inner(share=_NAN)}, "--inner.share is nan, it must be finite and at least 0 and below 1"),
        ({"inner": Inner(is_on=1)}, "--inner.is-on is 1, it must be True or False"),  # type: ignore[arg-type]
        ({"timeout_s": _INF}, "--timeout-s is inf, it must be finite and above 0 and at most 1000000"),
        ({"timeout_s": 10**400}, "--timeout-s is 1000"),
        ({"timeout_s": "3"}, "--timeout-s is '3', it must be a number"),
        ({"seed": -1}, "--seed is -1, it must be at least 0"),
        ({"seed": 2**63}, "--seed is 9223372036854775808, it must be below 2**63"),
        ({"seed": 1.0}, "--seed is 1.0, it must be a whole number"),
        ({"seed": True}, "--seed is True, it must be a whole number"),
        ({"limit": 0}, "--limit is 0, it must be from 1 to 9"),
        ({"sizes": (8, 7)}, "--sizes holds 7, each must be at least 8"),
        ({"sizes": (8, "9")}, "--sizes holds '9', each must be a whole number"),
        ({"sizes": 8}, "--sizes is 8, it must be a list of whole numbers"),
        ({"names": (3,)}, "--names holds 3, each must be a text"),
        ({"url": ""}, "--url is '', it must be a text that is not empty"),
        ({"url": None}, "--url is None, it must be a text that is not empty"),
        ({"cache": ""}, "--cache is '', it must be a text that is not empty"),
        ({"engine": "mpi"}, "--engine is 'mpi', it must be one of ddp, 2"),
        ({"engine": 2.0}, "--engine is 2.0, it must be one of ddp, 2"),
    ],
)
def test_what_is_not_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        check_fields(replace(Outer(), **changes))
    assert str(refused.value).startswith(message)


def test_names_stand_behind_a_prefix_of_the_caller_s() -> None:
    for prefix, name in (("--model.", "--model.batch-size"), ("", "batch_size")):
        with pytest.raises(UserError, match=rf"^{name} is 0, it must be at least 1$"):
            check_fields(Inner(batch_size=0), prefix)


def test_fields_are_walked_in_order() -> None:
    found = [(one.flag, one.path) for one in fields_of(Outer)]
    assert found[:2] == [("--inner.batch-size", "inner.batch_size"), ("--inner.share", "inner.share")]
    assert ("--share", "flat.share") in found
    assert len(found) == 14


def test_configurations_are_checked_without_torch_and_tyro() -> None:
    code = (
        "import sys; from stackgan_dist.config import Config; Config().validate(1)\n"
        "assert not {'torch', 'tyro'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
