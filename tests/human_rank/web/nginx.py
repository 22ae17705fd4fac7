"""A real nginx with the configuration of docs/human_rank.md, on loopback and with a certificate of its own."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DOCUMENT = Path(__file__).parents[3] / "docs" / "human_rank.md"
HOST = "localhost"
_START_S = 30


def missing_nginx() -> str | None:
    """Why there is no proxy to test with, or None."""
    absent = [name for name in ("nginx", "openssl") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)}; on Debian: apt-get install nginx-light openssl" if absent else None


def documented(upstream: int, port: int, folder: Path, *, takes_path_off: bool) -> str:
    """The server block of the document, with ports and files of this test."""
    match = re.search(r"```nginx\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert match
    end = "/;" if takes_path_off else ";"
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server_name example.org;": f"server_name {HOST};",
        "/etc/ssl/certs/example.org.pem": str(folder / "cert.pem"),
        "/etc/ssl/private/example.org.key": str(folder / "key.pem"),
        "http://127.0.0.1:8765;": f"http://127.0.0.1:{upstream}{end}",
    }
    block = match[1]
    for old, new in changes.items():
        assert old in block, f"the document does not say {old!r}"
        block = block.replace(old, new)
    return block


@contextmanager
def nginx(folder: Path, port: int, block: str) -> Iterator[ssl.SSLContext]:
    """nginx as a child of this process; yields what trusts its certificate."""
    folder.mkdir(exist_ok=True)
    for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
        (folder / name).mkdir()
    certificate = ["-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-days", "2", "-nodes"]
    subject = ["-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", *map(str, certificate), *subject],
        check=True,
        capture_output=True,
    )
    temporary = "".join(
        f"{name}_temp_path {folder / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder / 'pid'};\nevents {{}}\n"
        f"http {{\n{temporary}access_log off;\n{block}}}\n"
    )
    with (folder / "log").open("w") as log:
        command = ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + _START_S
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "nginx did not start"
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield ssl.create_default_context(cafile=str(folder / "cert.pem"))
    finally:
        process.terminate()
        process.wait(30)
