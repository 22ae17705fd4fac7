"""Hosts of their own on one machine: a network namespace each, with its own address, name and cable. Needs root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO

_SUBNET = "10.77.0"
_PROGRAMS = ("ip", "nsenter", "unshare")

# Run inside: not `ip netns exec`, because each host also gets a name and an /etc/hosts of its own.
_ENTER = 'hostname "$1"; mount --bind "$2" /etc/hosts; shift 2; exec "$@"'


def missing() -> str | None:
    """Why there can be no such hosts here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    absent = [program for program in _PROGRAMS if shutil.which(program) is None]
    if absent:
        return f"no {', '.join(absent)}; apt-get install iproute2 util-linux"
    probe = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


class Hosts:
    """Hosts that see only each other, through a switch: host i is called h{i} and has the address .{i}."""

    def __init__(self, count: int) -> None:
        self.names = [f"h{number}" for number in range(1, count + 1)]
        self._prefix = f"t{os.getpid()}"
        self._folder = Path(tempfile.mkdtemp(prefix="hosts-"))
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Lay the cables."""
        switch = self._namespace("sw")
        addresses = {name: f"{_SUBNET}.{number}" for number, name in enumerate(self.names, 1)}
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        self._hosts_file = self._folder / "hosts"
        self._hosts_file.write_text("\n".join(lines) + "\n")
        _ip(f"netns add {switch}")
        _ip(f"-n {switch} link add br0 type bridge forward_delay 0 stp_state 0")
        _ip(f"-n {switch} link set br0 up")
        for name, address in addresses.items():
            host = self._namespace(name)
            _ip(f"netns add {host}")
            _ip(f"-n {switch} link add to-{name} type veth peer name eth0 netns {host}")
            _ip(f"-n {switch} link set to-{name} master br0 up")
            _ip(f"-n {host} link set lo up")
            _ip(f"-n {host} addr add {address}/24 dev eth0")
            _ip(f"-n {host} link set eth0 up")

    def popen(
        self, name: str, command: list[str], cwd: Path, environment: dict[str, str], output: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start a command on a host."""
        enter = ["nsenter", f"--net=/run/netns/{self._namespace(name)}", "unshare", "--uts", "--mount"]
        process = subprocess.Popen(
            [*enter, "sh", "-ec", _ENTER, "sh", name, str(self._hosts_file), *command],
            cwd=cwd,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        self._started.append(process)
        return process

    def set_cable(self, name: str, *, plugged: bool) -> None:
        """Pull a host's cable, or plug it in again. Its peers get no sign of it but silence."""
        _ip(f"-n {self._namespace(name)} link set eth0 {'up' if plugged else 'down'}")

    def crash(self, name: str) -> None:
        """Kill everything that runs on a host."""
        for pid in self._processes(name):
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End what runs on the hosts, and the hosts."""
        for name in [*self.names, "sw"]:
            if Path(f"/run/netns/{self._namespace(name)}").exists():
                self.crash(name)
                _ip(f"netns del {self._namespace(name)}")
        for process in self._started:
            process.wait(timeout=10)
        shutil.rmtree(self._folder)

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}-{name}"

    def _processes(self, name: str) -> list[int]:
        listed = subprocess.run(
            ["ip", "netns", "pids", self._namespace(name)], capture_output=True, text=True, check=True
        )
        return [int(pid) for pid in listed.stdout.split()]


def _ip(arguments: str) -> None:
    subprocess.run(["ip", *arguments.split()], check=True, capture_output=True, text=True)


def wait_for_text(file: Path, text: str, timeout_s: float, occurrences: int = 1) -> None:
    """Wait until `file` contains `text` so many times; TimeoutError with the end of the file when it does not."""
    end = time.monotonic() + timeout_s
    while True:
        content = file.read_text(errors="replace") if file.exists() else ""
        if content.count(text) >= occurrences:
            return
        if time.monotonic() > end:
            raise TimeoutError(f"no {text!r} in {file} after {timeout_s} s; it ends with:\n{content[-3000:]}")
        time.sleep(0.2)
