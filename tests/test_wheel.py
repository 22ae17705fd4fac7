"""The wheel, far from the checkout: every front door opens, and `pack` finds its recipes inside the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from stackgan_dist import __version__
from stackgan_dist.cli.doors import COMMANDS

REPOSITORY = Path(__file__).parents[1]
OPEN_DOORS = """
import runpy, sys
for door in sys.argv[1:]:
    print("door", door, flush=True)
    sys.argv = [door, "--help-all"]
    try:
        runpy.run_module(f"stackgan_dist.{door}", run_name="__main__", alter_sys=True)
        print("exit 0", flush=True)
    except SystemExit as end:
        print("exit", end.code, flush=True)
    else:
        print("exit 0", flush=True)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stdout + built.stderr
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, and with the dependencies that are installed here."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", with_pip=False)
    (packages,) = (folder / "env").glob("lib/python3*/site-packages")
    # Their folder alone, without the .pth files in it: an editable install of the checkout must not be found.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages)]
    subprocess.run([*command, str(wheel)], check=True, timeout=120)
    return folder


def _python(installed: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(installed / "env" / "bin" / "python"), *arguments],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_the_recipes_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0].split("-")[0].removesuffix(".dist") for name in names} == {"stackgan_dist"}
    checkout = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "stackgan_dist").rglob("*.py")}
    recipes = {f"stackgan_dist/recipes/{path.name}" for path in (REPOSITORY / "shards").glob("*.toml")}
    pages = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "stackgan_dist" / "human_rank" / "web" / "pages").iterdir()
    }
    assert len(recipes) >= 2
    assert len(pages) >= 8
    configs = {f"stackgan_dist/deepspeed_configs/zero{stage}.json" for stage in (1, 2)}
    assert (checkout | recipes | pages | configs | {"stackgan_dist/py.typed"}) <= set(names)
    assert not [name for name in names if "test" in name or name.endswith(".pyc")]


def test_its_metadata_names_version_license_and_the_stackgan_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (folder,) = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
    assert "stackgan = stackgan_dist.__main__:main" in archive.read(f"{folder}/entry_points.txt").decode()
    metadata = archive.read(f"{folder}/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert archive.read(f"{folder}/licenses/LICENSE") == (REPOSITORY / "LICENSE").read_bytes()


def test_the_stackgan_command_runs(installed: Path) -> None:
    """Its script, as pip makes it from the entry point; `--target` puts it among the packages."""
    (script,) = (installed / "env").glob("lib/python3*/site-packages/bin/stackgan")
    assert _python(installed, str(script), "--version").strip() == __version__
    assert _python(installed, str(script), "pack", "--help").startswith("usage: ")


def test_every_front_door_opens(installed: Path) -> None:
    where = _python(installed, "-c", "import stackgan_dist; print(stackgan_dist.__file__)")
    assert Path(where.strip()).is_relative_to(installed)
    output = _python(installed, "-c", OPEN_DOORS, *COMMANDS)
    parts = output.split("door ")[1:]
    assert [part.split()[0] for part in parts] == list(COMMANDS)
    for part in parts:
        assert "usage: " in part
        assert part.rstrip().endswith("exit 0")
    assert "--training.batch-size" in parts[list(COMMANDS).index("train")]


def test_packing_finds_its_recipe_in_the_wheel(installed: Path) -> None:
    output = _python(installed, "-m", "stackgan_dist.pack", "painted", "--limit", "60", "--sizes", "76")
    assert "packed painted train: 60 pictures" in output
    for split in ("train", "test"):
        folder = installed / "data" / "painted" / split / "76"
        index = json.loads((folder / "index.json").read_text())
        assert index["samples"] == 60
        assert all((folder / shard["name"]).stat().st_size == shard["bytes"] for shard in index["shards"])
