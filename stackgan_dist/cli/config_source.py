"""Where a run's configuration comes from: a preset or a file, which flags then change field by field."""

from __future__ import annotations

import json
import runpy
import traceback
from pathlib import Path
from typing import Any

from stackgan_dist.cli.doors import parse_options
from stackgan_dist.config import Config, from_json
from stackgan_dist.errors import UserError
from stackgan_dist.importable import check_allowed
from stackgan_dist.presets import DEFAULT_PRESET, PRESETS, preset
from stackgan_dist.ranges import check_fields
from stackgan_dist.storage.files import read_bytes

_HOW = """
Where the flags start from, one of:
  --config FILE.py    a Python file of your own, which is executed: `config = Config(...)` or a function config()
  --config FILE.json  the config.json of a run's folder; may be a URL
  --preset NAME       one of these, by default {default}:
{presets}"""


def parse(arguments: list[str], description: str = "") -> Config:
    """What `--preset` or `--config` names, changed by the other flags; `description` is what --help-all begins with.

    Raises UserError when there is no such configuration, or a value is out of its range.
    """
    name, rest = _taken(arguments, "--preset")
    file, rest = _taken(rest, "--config")
    if name is not None and file is not None:
        raise UserError(f"--preset {name} and --config {file} were both given; a run starts from one of them")
    presets = "\n".join(f"    {known:<32}  {row.what}" for known, row in PRESETS.items())
    return parse_options(
        Config,
        "train",
        description + _HOW.format(default=DEFAULT_PRESET, presets=presets),
        arguments=[word for word in rest if not word.startswith("--local_rank=")],  # of deepspeed; LOCAL_RANK has it
        default=preset(DEFAULT_PRESET if name is None else name) if file is None else load_config(file),
    )


def load_config(file: str) -> Config:
    """The configuration in a Python file (`config`, or what `config()` returns), or in the config.json of a run.

    A Python file is executed as its own user would execute it, hence only from a local path.

    Raises UserError that names the file and, for what goes wrong inside it, the line.
    """
    if file.endswith(".json"):
        config = _from_run(file)
    elif "://" in file:
        raise UserError(f"--config {file} is on a URL, from which no code is executed; copy it to a local file")
    elif not Path(file).is_file():
        raise UserError(f"--config {file}: there is no such file; give a Python file, or the config.json of a run")
    elif not file.endswith(".py"):
        raise UserError(
            f"--config {file} ends in neither .py nor .json; give a Python file with `config = Config(...)` "
            "(docs/configuration.md), or the config.json of a run"
        )
    else:
        config = _from_python(file)
    try:
        check_fields(config)
    except UserError as error:
        raise UserError(f"--config {file}: {error}") from error
    return config


def _from_run(file: str) -> Config:
    """Of a run's config.json, which holds the identity of its data beside the configuration."""
    try:
        fields = json.loads(read_bytes(file))["config"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"--config {file}: there is no such file") from error
    except OSError as error:
        raise UserError(f"--config {file} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--config {file} is not the config.json of a run") from error
    config = from_json(json.dumps(fields), f"--config {file}")
    for name in config.own_parts:
        check_allowed(name, f"--config {file}")
    return config


def _from_python(file: str) -> Config:
    try:
        found: Any = runpy.run_path(file).get("config")
        config = found() if callable(found) else found
    except (Exception, SystemExit) as error:  # whatever is wrong in it is the user's to mend
        raise UserError(f"--config {_place(error, file)}: {type(error).__name__}: {error}") from error
    if found is None:
        raise UserError(f"--config {file} defines no `config`; add `config = Config(...)` or a function config()")
    if not isinstance(config, Config):
        kind = type(config).__name__
        raise UserError(f"--config {file}: its `config` is of type {kind}; it must be a stackgan_dist.config.Config")
    return config


def _place(error: BaseException, file: str) -> str:
    """FILE:LINE where the file was when `error` came."""
    if isinstance(error, SyntaxError) and error.filename == file:
        return f"{file}:{error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f"{file}:{lines[-1]}" if lines else file


def _taken(arguments: list[str], flag: str) -> tuple[str | None, list[str]]:
    """The last value of `flag`, given as `FLAG VALUE` or `FLAG=VALUE`, and the arguments without it."""
    value, rest = None, []
    words = iter(arguments)
    for word in words:
        if word == flag:
            value = next(words, "")
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
        else:
            rest.append(word)
    return value, rest
