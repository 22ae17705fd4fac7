"""The server as a process of its own, and a real Chromium to look at its pages with."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DESKTOP, PHONE = (1280, 900), (390, 844)
START_S = 300


class Server:
    """`human_rank serve ARGUMENTS` on a free port (or on `port`); waits until it listens."""

    def __init__(self, log: Path, *arguments: object, port: int = 0) -> None:
        self._log = log
        command = [sys.executable, "-m", "stackgan_dist.human_rank", "serve", *map(str, arguments)]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)], stdout=output, stderr=subprocess.STDOUT, env=environment
            )
        deadline = time.monotonic() + START_S
        while not (found := re.search(r"serving at (http://\S+:(\d+)\S*)", log.read_text())):
            assert self.process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.02)
        self.url, self.port = found[1], int(found[2])

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def kill(self) -> None:
        """SIGKILL: no chance to write anything."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request as a client without a browser sends it: (status, headers in lower case, content).

        A body of bytes is sent as it is, anything else as JSON.
        """
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        sent = {} if data is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, data, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """(status, the answer's JSON)."""
        status, _, content = self.ask(method, path, body)
        return status, json.loads(content)


@contextmanager
def serving(log: Path, *arguments: object) -> Iterator[Server]:
    """A server, ended afterwards."""
    server = Server(log, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()


def missing_browser() -> str | None:
    """Why there is no browser to test with, or None."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "selenium is not installed: pip install 'stackgan_dist[dev]'"
    absent = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(absent)}; on Debian: apt-get install chromium chromium-driver" if absent else None


def open_browser(size: tuple[int, int] = DESKTOP, *, touch: bool = False, trusts_any_certificate: bool = False) -> Any:
    """A headless Chromium, as a selenium WebDriver; nothing is downloaded for it."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ("--headless=new", "--disable-dev-shm-usage", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's own sandbox refuses root
    options.accept_insecure_certs = trusts_any_certificate
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options, Service(shutil.which("chromedriver")))
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": touch},
    )
    if touch:
        browser.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": True})
    return browser
