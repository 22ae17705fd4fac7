"""Parts of a user's own, by importable name: MODULE:CLASS, as in `my_package:MyFamily`, and their options KEY=VALUE.

Importing a module executes it. So a name is imported where the user's own command or configuration gives it. One that
came with files, in a checkpoint or in the index of a data set, may be from anybody: it has to be allowed.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import os
import re
import sys
import sysconfig
import tomllib
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stackgan_dist.errors import UserError
from stackgan_dist.near_names import did_you_mean

ALLOW = "STACKGAN_ALLOW"
"""The environment variable of the names, or whole modules, that may be imported when a file names them, by commas."""
_NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_GUIDE = "docs/extending.md"


def is_importable(name: str) -> bool:
    """Whether `name` has the form MODULE:CLASS."""
    return _NAME.fullmatch(name) is not None


def check_allowed(name: str, where: str) -> None:
    """Refuse to import what a file names, unless STACKGAN_ALLOW has it; `where` says which file, for people."""
    allowed = {entry.strip() for entry in os.environ.get(ALLOW, "").split(",")}
    if not {name, name.partition(":")[0]} & allowed:
        raise UserError(
            f"{where} names {name}, which is no part of stackgan_dist: to use it, Python has to import and execute the "
            f"module {name.partition(':')[0]}. If that is yours, or you trust it, allow it with the environment "
            f"variable {ALLOW}={name}"
        )


def make_part(name: str, protocol: type[Any], flag: str, *arguments: Any, **options: Any) -> Any:
    """An instance of the class `name`, made by CLASS(*arguments, **options).

    Args:
        name: MODULE:CLASS; modules are also looked for in the working folder.
        protocol: what the class has to have. Its methods are looked for before anything of the class is called.
        flag: what names it, for messages.
        arguments: those that every class of the protocol is called with.
        options: those that the user gave for this one.

    Raises UserError when it cannot be imported, is no such class, or does not take the options.
    """
    part = _find(name, flag)
    _check_members(part, _methods(protocol), name, protocol, flag)
    try:
        inspect.signature(part).bind(*arguments, **options)
    except TypeError as error:
        takes = f"{part.__name__}{inspect.signature(part)}"
        raise UserError(f"{flag} {name} does not take these options: {error}; it is {takes}") from error
    try:
        made = part(*arguments, **options)
    except UserError:
        raise
    except Exception as error:  # whatever is wrong in it is the user's to mend
        raise UserError(f"{flag} {name} could not be made: {describe_failure(error)}") from error
    _check_members(made, _attributes(protocol), name, protocol, flag)
    return made


def known_part(where: str) -> Any:
    """What the package has at `where`, "module:attribute": imported when it is needed."""
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def options_of(words: Iterable[str], flag: str) -> dict[str, Any]:
    """Options given as KEY=VALUE with the VALUE as in TOML; what is not TOML is a text.

    Raises UserError, naming the `flag`, for what is not of this form.
    """
    options: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise UserError(f"{flag}: {word!r} is not KEY=VALUE, e.g. partial=true")
        try:
            options[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            options[key] = value
    return options


def source_digest(name: str) -> str:
    """Of the file that the module of `name`, which is imported, was read from; "" where there is none."""
    file = getattr(sys.modules.get(name.partition(":")[0]), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file and Path(file).is_file() else ""


def describe_failure(error: BaseException) -> str:
    """What went wrong in a user's code, and in which line of it: "ValueError: no width (my_package.py:12)"."""
    frames = traceback.extract_tb(error.__traceback__)
    installed = (str(Path(__file__).parent), sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"))
    theirs = [frame for frame in frames if not frame.filename.startswith((*installed, "<"))] or frames
    where = f" ({theirs[-1].filename}:{theirs[-1].lineno})" if theirs else ""
    return f"{type(error).__name__}: {error}{where}"


def _find(name: str, flag: str) -> type:
    module_name, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # last: nothing there takes the place of what is installed
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise UserError(f"{flag} {name}: {module_name} needs a module that is not there: {error}") from error
        raise UserError(
            f"{flag} {name}: there is no module {error.name}; install it, or start the command in the folder that "
            "holds it, or name that folder in PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise UserError(f"{flag} {name}: importing {module_name} failed: {describe_failure(error)}") from error
    try:
        found = getattr(module, attribute)
    except AttributeError as error:
        hint = did_you_mean(attribute, dir(module))
        raise UserError(f"{flag} {name}: the module {module_name} has no {attribute}.{hint}") from error
    if not isinstance(found, type):
        raise UserError(f"{flag} {name} is of type {type(found).__name__}; it must be a class ({_GUIDE})")
    return found


def _check_members(part: Any, needed: list[str], name: str, protocol: type, flag: str) -> None:
    missing = [member for member in needed if not hasattr(part, member)]
    if missing:
        whole = ", ".join([*_methods(protocol), *_attributes(protocol)])
        raise UserError(
            f"{flag} {name} lacks {' and '.join(missing)}; a class of {protocol.__name__} has {whole} ({_GUIDE})"
        )


def _methods(protocol: type) -> list[str]:
    return [name for name, member in vars(protocol).items() if callable(member) and not name.startswith("_")]


def _attributes(protocol: type) -> list[str]:
    return [name for name in inspect.get_annotations(protocol) if not name.startswith("_")]
