"""The manifest for Kubernetes: valid by a schema of the parts that it uses, and in agreement with itself and the code.

The schema (jobset.schema.json) was written from the API references of JobSet v1alpha2, batch/v1 and core/v1: names,
types, allowed values and required fields of what the manifest uses, and nothing that it does not. No cluster was there.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from stackgan_dist.cli.config_source import parse
from stackgan_dist.errors import EXIT_PREEMPTED, EXIT_USER_ERROR

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((Path(__file__).parent / "jobset.schema.json").read_text())


@pytest.fixture
def manifest() -> Any:
    return yaml.safe_load((ROOT / "launch" / "kubernetes" / "jobset.yaml").read_text())


def _job(manifest: Any) -> Any:
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def _pod(manifest: Any) -> Any:
    return _job(manifest)["template"]["spec"]


def _environment(manifest: Any) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in _pod(manifest)["containers"][0]["env"]}


def test_it_is_valid(manifest: Any) -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert [error.message for error in Draft202012Validator(SCHEMA).iter_errors(manifest)] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: _job(m).update(parallel=4),
        lambda m: _job(m).update(backoffLimit="0"),
        lambda m: _job(m)["podFailurePolicy"]["rules"][0].update(action="Fail"),
        lambda m: _pod(m).update(restartPolicy="Always"),
        lambda m: _pod(m)["containers"][0]["env"][0].update(value=4),
        lambda m: _pod(m)["volumes"][0]["emptyDir"].update(sizeLimit="16 GB"),
        lambda m: m["spec"]["failurePolicy"]["rules"][0].update(onJobFailureReasons=["ExitCode2"]),
        lambda m: m.update(apiVersion="jobset.x-k8s.io/v1"),
    ],
)
def test_the_schema_finds_faults(manifest: Any, spoil: Callable[[Any], None]) -> None:
    spoilt = copy.deepcopy(manifest)
    spoil(spoilt)
    assert list(Draft202012Validator(SCHEMA).iter_errors(spoilt))


def test_exit_codes_are_those_of_the_commands(manifest: Any) -> None:
    rules = _job(manifest)["podFailurePolicy"]["rules"]
    by_code = {rule["onExitCodes"]["values"][0]: rule["action"] for rule in rules if "onExitCodes" in rule}
    assert by_code == {EXIT_USER_ERROR: "FailJob", EXIT_PREEMPTED: "Ignore"}
    assert _pod(manifest)["restartPolicy"] == "Never"  # without which Kubernetes takes no podFailurePolicy


def test_nodes_find_each_other(manifest: Any) -> None:
    job, environment = _job(manifest), _environment(manifest)
    assert int(environment["NNODES"]) == job["parallelism"] == job["completions"]
    name, group = manifest["metadata"]["name"], manifest["spec"]["replicatedJobs"][0]["name"]
    assert environment["MASTER_ADDR"] == f"{name}-{group}-0-0.{manifest['spec']['network']['subdomain']}"
    (port,) = _pod(manifest)["containers"][0]["ports"]
    assert int(environment["MASTER_PORT"]) == port["containerPort"]
    known = set(re.findall(r"^#   ?([A-Z_]+) ", (ROOT / "launch" / "torchrun.sh").read_text(), re.MULTILINE))
    known |= set(re.findall(r"^# ([A-Z_]+)  ", (ROOT / "launch" / "torchrun.sh").read_text(), re.MULTILINE))
    assert set(environment) <= known


def test_there_is_time_to_save_and_room_for_batches(manifest: Any) -> None:
    pod = _pod(manifest)
    assert pod["terminationGracePeriodSeconds"] > int(_environment(manifest)["STOP_TIMEOUT_S"]) + 30
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"


def test_the_command_is_one_that_the_trainer_takes(manifest: Any) -> None:
    module, *flags = _pod(manifest)["containers"][0]["args"][1:]
    assert module == "stackgan_dist.train"
    config = parse(flags, "")
    mounts = [mount["mountPath"] for mount in _pod(manifest)["containers"][0]["volumeMounts"]]
    for path in (config.data.cache, config.run.folder):
        assert any(str(path).startswith(mount) for mount in mounts)


def test_the_image_runs_as_the_user_of_the_manifest_and_copies_what_it_needs(manifest: Any) -> None:
    dockerfile = (ROOT / "launch" / "Dockerfile").read_text()
    assert f"--uid {_pod(manifest)['securityContext']['runAsUser']}" in dockerfile
    for line in re.findall(r"^COPY (.+)$", dockerfile, re.MULTILINE):
        *sources, _ = line.split()
        assert all((ROOT / source).exists() for source in sources), line
    assert "/opt/stackgan_dist/launch/torchrun.sh" in dockerfile
