"""launch/constraints.txt pins everything that pyproject.toml asks for, to a version that it allows."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def test_every_dependency_is_pinned() -> None:
    lines = (ROOT / "launch" / "constraints.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))
    }
    assert all(pins.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [
        Requirement(line) for line in (*project["dependencies"], *(one for extra in extras.values() for one in extra))
    ]
    # `dev` installs what the tests use; these clients are for those who have such a store.
    untested = {Requirement(line).name for extra in ("gs", "az") for line in extras[extra]}
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        if name == "stackgan-dist":
            assert requirement.extras <= set(extras)
        elif requirement.name not in untested:
            assert name in pins, f"{requirement} has no pin; bash launch/constraints.sh"
            assert requirement.specifier.contains(pins[name]), f"{requirement} does not allow {pins[name]}"
