"""Which values the fields of an options class may have: declared at the field, checked and documented by one mechanism.

    batch_size: Annotated[int, Range(at_least=1)] = 64

`check_fields` holds every field against its annotation: numbers against their range, choices against their Literal.
Whatever the range, a whole number has to fit 64 bits, another number has to be finite, and a text must not be empty.
`help_texts` writes the ranges into --help-all. Loads neither torch nor tyro.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from stackgan_dist.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Range:
    """The numbers between two limits, of which each is included (`at_least`, `at_most`) or not (`above`, `below`)."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def __contains__(self, number: float) -> bool:
        return (
            (self.at_least is None or number >= self.at_least)
            and (self.above is None or number > self.above)
            and (self.at_most is None or number <= self.at_most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.at_least is not None and self.at_most is not None:
            return f"from {self.at_least} to {self.at_most}"
        limits = ((field.name.replace("_", " "), getattr(self, field.name)) for field in dataclasses.fields(self))
        return " and ".join(f"{word} {limit}" for word, limit in limits if limit is not None)


Seed = Annotated[int, Range(at_least=0)]
"""A seed of random numbers; like every whole number it is below 2**63."""
Timeout = Annotated[float, Range(above=0, at_most=10**6)]
"""Seconds to wait, at most some days: clocks that count nanoseconds in 64 bits overflow with more than 9e9."""


@dataclass(frozen=True)
class Field:
    """A field of an options class, or of one inside it."""

    flag: str
    """As it is typed, e.g. `--training.batch-size`."""
    path: str
    """As Python reaches it, e.g. `training.batch_size`."""
    hint: Any
    """Its annotation, with what `Annotated` adds."""


def check_fields(options: Any, prefix: str = "--") -> None:
    """Hold every field of `options` (a dataclass), and of dataclasses inside it, against its annotation.

    `prefix` stands before the names in messages: `--model.` where flags fill only a part of a larger one; "" where
    fields are no flags, and keep their names of Python.

    Raises UserError that names the first field at fault, what it is and what it must be.
    """
    for field in fields_of(options.__class__):
        if (fault := _fault(attrgetter(field.path)(options), field.hint)) is not None:
            name = field.flag.replace("--", prefix, 1) if prefix else field.path
            raise UserError(f"{name} {fault}")


def fields_of(options: Any, flag: str = "--", path: str = "") -> Iterator[Field]:
    """Every field of a class that is not a dataclass itself, in order; `flag` and `path` lead to the class."""
    for name, hint in type_hints(options).items():
        own_flag, own_path = f"{flag}{name.replace('_', '-')}", f"{path}{name}"
        if dataclasses.is_dataclass(kind := _kind(hint)):
            yield from fields_of(kind, flag if _has_no_prefix(hint) else f"{own_flag}.", f"{own_path}.")
        else:
            yield Field(own_flag, own_path, hint)


@functools.cache
def type_hints(options: Any) -> dict[str, Any]:
    """The annotations of a class, resolved, with what `Annotated` adds."""
    return get_type_hints(options, include_extras=True)


def ranges_of(hint: Any) -> list[Range]:
    """The ranges anywhere in an annotation: of a number, of one that may be None, of the items of a tuple."""
    return [hint] if isinstance(hint, Range) else [found for part in get_args(hint) for found in ranges_of(part)]


_KINDS = {int: "whole number", float: "number", str: "text"}


def _kind(hint: Any) -> Any:
    """An annotation without what `Annotated` adds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _has_no_prefix(hint: Any) -> bool:
    """Whether the flags of a dataclass stand without its name: tyro.conf.arg(name="")."""
    return any(getattr(extra, "name", None) == "" for extra in getattr(hint, "__metadata__", ()))


def _fault(value: Any, hint: Any) -> str | None:
    """What is wrong with `value`, as the rest of a sentence that begins with its name; None: nothing."""
    kind = _kind(hint)
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        faults = [_fault(value, part) for part in parts if part is not type(None)]
        return None if value is None or None in faults else faults[0]
    if origin is tuple:
        if not isinstance(value, tuple):
            return f"is {value!r}, it must be a list of {_KINDS[_kind(parts[0])]}s"
        needed = ((item, _needed(item, parts[0], may_be_empty=True)) for item in value)
        return next((f"holds {item!r}, each must be {need}" for item, need in needed if need is not None), None)
    need = _needed(value, hint)
    return None if need is None else f"is {value!r}, it must be {need}"


def _needed(value: Any, hint: Any, may_be_empty: bool = False) -> str | None:
    """What `value` would have to be; None where it is.

    `may_be_empty`: texts of a list, of which the command itself says by its number which one is empty.
    """
    kind = _kind(hint)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        is_one = any(type(value) is type(choice) and value == choice for choice in choices)
        return None if is_one else f"one of {', '.join(map(str, choices))}"
    if kind is bool:
        return None if isinstance(value, bool) else "True or False"
    if kind is str:
        return None if isinstance(value, str) and (value or may_be_empty) else f"a {_KINDS[str]} that is not empty"
    if kind not in (int, float):
        return None
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        return f"a {_KINDS[kind]}"
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return "below 2**63" if value > 0 else "above -2**63"
    ranges = ranges_of(hint)
    if not math.isfinite(value):
        return " and ".join(["finite", *map(str, ranges)])
    return next((str(limits) for limits in ranges if value not in limits), None)
