"""What --help-all says: a command's own words, and of each flag the docstring under its field, default and range."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import shutil
import textwrap
from typing import Annotated, Any

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec, StructTypeInfo

from stackgan_dist.ranges import ranges_of, type_hints

REGISTRY = ConstructorRegistry()
"""For `tyro.cli`: reads options classes as tyro itself does, and adds their ranges to the help."""


@REGISTRY.struct_rule
def _options_class(info: StructTypeInfo) -> StructConstructorSpec | None:
    if not dataclasses.is_dataclass(info.type) or info.type.__module__.startswith("tyro."):
        return None  # tyro puts dataclasses of its own around a union
    hints, docs = type_hints(info.type), field_docs(info.type)
    fields = [
        StructFieldSpec(field.name, _with_hint(hints[field.name]), _default(field, info), docs.get(field.name))
        for field in dataclasses.fields(info.type)
    ]
    return StructConstructorSpec(info.type, tuple(fields))


@functools.cache
def field_docs(options: Any) -> dict[str, str]:
    """The docstring under each field of a class, as one paragraph."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(options))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def wrapped(text: str) -> str:
    """The paragraphs of `text` at the terminal's width; indented lines stay as they are.

    A paragraph hangs by two columns: tyro undoes a break unless the next line begins with a space.
    """
    width = min(shutil.get_terminal_size().columns, 120) - 1
    lines: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        if not line or line[0].isspace() or not lines or not lines[-1] or lines[-1][0].isspace():
            lines.append(line)
        else:
            lines[-1] += f" {line}"
    return "\n".join(textwrap.fill(line, width, subsequent_indent="  ") if line[:1].strip() else line for line in lines)


def _with_hint(hint: Any) -> Any:
    ranges = [str(limits) for limits in ranges_of(hint)]

    def in_brackets(default: str) -> str:
        # What happens without a value is in the docstring.
        return f"({'; '.join(['optional' if default in ('None', '') else f'default: {default}', *ranges])})"

    return Annotated[hint, tyro.conf.arg(help_behavior_hint=in_brackets)]


def _default(field: dataclasses.Field[Any], info: StructTypeInfo) -> Any:
    if isinstance(info.default, info.type):
        return getattr(info.default, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return tyro.MISSING_NONPROP if field.default_factory is dataclasses.MISSING else field.default_factory()
