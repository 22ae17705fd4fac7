"""A real S3 server (SeaweedFS) on loopback, which checks signatures and keeps what it has acknowledged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from free_ports import free_ports

ACCESS_KEY, SECRET_KEY = "tests", "no-secret-of-anybody"
BUCKET = "bucket"


@dataclass(frozen=True)
class Server:
    """Where it listens."""

    port: int

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.port}"


def variables(endpoint: str) -> Mapping[str, str]:
    """What a user would export to use the server, or something in front of it, at `endpoint`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }


@contextmanager
def s3_server(folder: Path) -> Iterator[Server]:
    """Start the server on `folder`, with one user and one bucket, which anybody may read."""
    folder.mkdir(parents=True, exist_ok=True)
    identities = {
        "identities": [
            {
                "name": "tests",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            },
            {"name": "anonymous", "actions": [f"Read:{BUCKET}"]},
        ]
    }
    config = folder / "identities.json"
    config.write_text(json.dumps(identities))
    # A port and the one that it is told to use for gRPC, for each of the server's parts.
    s3, *others = free_ports(10)
    ports = [f"-s3.port={s3}", f"-s3.port.grpc={others.pop()}"]
    for part in ("master", "filer", "volume", "admin"):
        ports += [f"-{part}.port={others.pop()}", f"-{part}.port.grpc={others.pop()}"]
    command = [
        Path(sys.executable).parent / "weed", "-logtostderr", "mini", f"-dir={folder}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-s3.config={config}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false", *ports,
    ]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True)
    try:
        _wait_until_ready(process, s3, folder / "server.log")
        yield Server(s3)
    finally:
        process.kill()
        process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3", endpoint_url=f"http://127.0.0.1:{port}", aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1", config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
    )  # fmt: skip
    deadline = time.monotonic() + 90
    while True:
        try:
            names = [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
            if BUCKET not in names:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"")
            client.delete_object(Bucket=BUCKET, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server does not answer: {log.read_text()[-3000:]}") from error
            time.sleep(0.1)
