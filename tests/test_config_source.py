"""Where a run's configuration comes from: a preset, a Python file, or the config.json of a run; then flags."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stackgan_dist.cli.config_source import parse
from stackgan_dist.config import Config, TrainingConfig, from_json, to_json
from stackgan_dist.errors import UserError
from stackgan_dist.presets import DEFAULT_PRESET, preset

HEAD = "from dataclasses import replace\nfrom stackgan_dist.config import Config, TrainingConfig\n"
MINE = "config = Config(training=TrainingConfig(batch_size=12, epochs=3))\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "my.py"


def refused(file: object, *flags: str) -> str:
    with pytest.raises(UserError) as error:
        parse(["--config", str(file), *flags])
    return str(error.value)


def test_without_either_it_is_the_default_preset() -> None:
    assert parse([]) == preset(DEFAULT_PRESET)
    assert parse(["--preset", "coco-stage1"]) == parse(["--preset=coco-stage1"]) == preset("coco-stage1")
    assert parse(["--local_rank=1"]) == preset(DEFAULT_PRESET)  # of the deepspeed launcher


@pytest.mark.parametrize("text", [MINE, "def config():\n    return Config(training=TrainingConfig(12, 12, 3))\n"])
def test_a_python_file_and_flags_that_change_it(file: Path, text: str) -> None:
    file.write_text(HEAD + text)
    found = parse(["--config", str(file)])
    assert (found.training.batch_size, found.training.epochs) == (12, 3)
    changed = parse([f"--config={file}", "--training.epochs", "4"])
    assert changed == replace(found, training=replace(found.training, epochs=4))


def test_the_config_json_of_a_run(tmp_path: Path) -> None:
    config = replace(preset("demo-stage2"), training=TrainingConfig(seed=5))
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"config": json.loads(to_json(config)), "data": {"name": "painted"}}))
    assert parse(["--config", str(file)]) == parse(["--config", f"file://{file}"]) == config


def test_a_run_s_own_config_json(packed: Path, tmp_path: Path) -> None:
    from stackgan_dist.data.index import load_index
    from stackgan_dist.runs.folder import RunFolder

    RunFolder(str(tmp_path)).write_config(preset("painted-gawwn-keypoints"), load_index(f"{packed}/train/76"))
    assert parse(["--config", f"{tmp_path}/config.json"]) == preset("painted-gawwn-keypoints")


def test_a_preset_and_a_file_are_refused(file: Path) -> None:
    assert "--preset cub-stage1 and --config" in refused(file, "--preset", "cub-stage1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "my.py defines no `config`; add `config = Config(...)` or a function config()"),
        (HEAD + "config = 3\n", "my.py: its `config` is of type int; it must be a stackgan_dist.config.Config"),
        (HEAD + "config = Config\n", ""),  # a function that returns one
        (HEAD + "def config():\n    return TrainingConfig()\n", "its `config` is of type TrainingConfig; it must be"),
        (HEAD + "config = Config(\n", "my.py:3: SyntaxError: '(' was never closed"),
        (HEAD + "\nconfig = Config(batch=3)\n", "my.py:4: TypeError: "),
        (HEAD + "def config():\n    import nosuch\n", "my.py:4: ModuleNotFoundError: No module named 'nosuch'"),
        (HEAD + "raise SystemExit('over')\n", "my.py:3: SystemExit: over"),
        (HEAD + "open('/nowhere')\n", "my.py:3: FileNotFoundError: "),
        (
            HEAD + "config = Config(training=TrainingConfig(adam_beta1=1.0))\n",
            "adam-beta1 is 1.0, it must be",
        ),
        (HEAD + "config = Config(training=TrainingConfig(batch_size='8'))\n", "batch-size is '8', it must be a whole"),
        (HEAD + "config = Config(engine='mpi')\n", "--engine is 'mpi', it must be one of ddp, deepspeed"),
    ],
)
def test_faults_of_a_python_file_are_named(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    if not message:
        assert parse(["--config", str(file)]) == Config()
        return
    found = refused(file)
    assert message in found
    assert found.startswith(f"--config {file}")


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in ("my.py", "my.json", "."):
        assert refused(tmp_path / name).startswith(f"--config {tmp_path / name}: there is no such file")
    assert "there is no such file" in refused("")


def test_other_endings_are_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(HEAD + MINE)
    assert "my.yaml ends in neither .py nor .json; give a Python file" in refused(file)


def test_no_code_is_taken_from_a_url() -> None:
    for url in ("s3://bucket/my.py", "file:///my.py", "https://host/my.py"):
        assert "from which no code is executed" in refused(url)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not the config.json of a run"),
        ("[]", "is not the config.json of a run"),
        ('{"model": {}}', "is not the config.json of a run"),
        ('{"config": {"model": {}}}', "is not a configuration of this version"),
        ('{"config": {"model": {"noise_dim": 0}, "data": {}, "training": {}, "run": {}}}', "--model.noise-dim is 0"),
        ('{"config": {"model": {}, "data": {}, "training": {"epochs": 0}, "run": {}}}', "--training.epochs is 0"),
        ('{"config": {"model": {}, "data": {"url": 3}, "training": {}, "run": {}}}', "--data.url is 3"),
    ],
)
def test_faults_of_a_config_json_are_named(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    found = refused(file)
    assert message in found
    assert found.startswith(f"--config {file}")


def test_a_checkpoint_s_numbers_are_read_as_they_are() -> None:
    """Runs that were trained before a number had its range can still be generated from."""
    odd = replace(Config(), training=TrainingConfig(halve_every_epochs=-1))
    assert from_json(to_json(odd), "step-7") == odd


def test_scripts_ask_without_torch(file: Path) -> None:
    file.write_text(HEAD + MINE)
    code = (
        "import sys; sys.argv = ['runs', 'folder', '--config', sys.argv[1], '--run.name', 'x']\n"
        "from stackgan_dist.runs.__main__ import main; main()\n"
        "assert 'torch' not in sys.modules"
    )
    found = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert found.stdout == "runs/x\n"
