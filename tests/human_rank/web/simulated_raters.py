"""Many raters at once, and a server that is killed under them: `python tests/human_rank/web/simulated_raters.py STUDY`.

Every rater joins, looks at the question and its pictures, thinks for a while, votes, and goes on; now and then one
takes a vote back. In the middle the server gets SIGKILL and is started again on the same port; raters ask again
until they are answered, as the page does. At the end every vote that was acknowledged must be on record, once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from human_rank.web.pages import Server

_AGAIN_S = 0.2


@dataclass
class Outcome:
    """What the raters saw."""

    latencies_s: list[float] = field(default_factory=list)
    """From sending a vote to its acknowledgement; votes that met the killed server are not among them."""
    acknowledged: set[tuple[int, int, tuple[int, ...]]] = field(default_factory=set)
    """(rater's own number, position, slots best first), without those taken back."""
    undone: int = 0
    repeated: int = 0
    """Requests sent again because the server was gone."""


class Client:
    """One kept-alive HTTP connection."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """(status, content); ConnectionError or asyncio.IncompleteReadError when the server goes away."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        try:
            data = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Length: {len(data)}\r\n"
            writer.write((head + "Content-Type: application/json\r\n\r\n").encode() + data)
            await writer.drain()
            header = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = next(line for line in header.split("\r\n") if line.startswith("content-length:"))
            return int(header.split()[1]), await reader.readexactly(int(length.split(":")[1]))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _insist(client: Client, outcome: Outcome, *request: Any) -> tuple[int, bytes, float | None]:
    """Ask until there is an answer; the seconds it took, None when it was asked more than once."""
    first = True
    while True:
        begin = time.perf_counter()
        try:
            status, content = await client.ask(*request)
        except (OSError, asyncio.IncompleteReadError):
            outcome.repeated += 1
            first = False
            await asyncio.sleep(_AGAIN_S)
            continue
        return status, content, time.perf_counter() - begin if first else None


async def _rate(number: int, port: int, think_s: float, until: float, outcome: Outcome) -> str:
    dice = random.Random(number)
    client = Client(port)
    await asyncio.sleep(dice.uniform(0, min(think_s, until - time.monotonic())))
    status, content, _ = await _insist(client, outcome, "POST", "/raters")
    assert status == 201, content
    link = f"/{json.loads(content)['link']}"
    _, content, _ = await _insist(client, outcome, "GET", f"{link}/turn")
    turn = json.loads(content)
    last: tuple[int, int, tuple[int, ...]] | None = None
    while turn["sentence"] is not None and time.monotonic() < until:
        for slot in range(turn["sets"]):
            status, content, _ = await _insist(client, outcome, "GET", f"{link}/pictures/{turn['position']}/{slot}.png")
            assert status == 200
            assert content[1:4] == b"PNG"
        await asyncio.sleep(dice.uniform(0.5, 1.5) * think_s)
        if last is not None and dice.random() < 0.05:
            status, content, _ = await _insist(client, outcome, "DELETE", f"{link}/votes/{last[1]}")
            if status == 200:
                outcome.undone += 1
            else:
                assert status == 409, content  # done already by a request whose answer was lost
            outcome.acknowledged.remove(last)
            last = None
        else:
            slots = list(range(turn["sets"]))
            dice.shuffle(slots)
            request = ("PUT", f"{link}/votes/{turn['position']}", {"ranking": slots})
            status, content, took_s = await _insist(client, outcome, *request)
            assert status == 200, content
            last = (number, turn["position"], tuple(slots))
            outcome.acknowledged.add(last)
            if took_s is not None:
                outcome.latencies_s.append(took_s)
        _, content, _ = await _insist(client, outcome, "GET", f"{link}/turn")
        turn = json.loads(content)
    client.close()
    return link


async def _all(
    study: Path, logs: Path, raters: int, seconds: float, think_s: float, kill: bool
) -> tuple[Outcome, list[str], Server]:
    outcome = Outcome()
    arguments = (study, "--joins-per-minute", 60 * raters)
    server = await asyncio.to_thread(Server, logs / "first.log", *arguments)
    until = time.monotonic() + seconds
    tasks = [asyncio.create_task(_rate(i, server.port, think_s, until, outcome)) for i in range(raters)]
    if kill:
        await asyncio.sleep(seconds / 2)
        server.kill()
        server = await asyncio.to_thread(lambda: Server(logs / "second.log", *arguments, port=server.port))
    return outcome, list(await asyncio.gather(*tasks)), server


def simulate(study: Path, raters: int, seconds: float, think_s: float, *, kill: bool = True) -> Outcome:
    """Let `raters` rate the study, which must have no votes yet; AssertionError when a vote is lost or counts twice."""
    with tempfile.TemporaryDirectory() as folder:
        logs = Path(folder)
        outcome, links, server = asyncio.run(_all(study, logs, raters, seconds, think_s, kill))
        try:
            _check(study, logs, outcome, links, server)
        finally:
            server.kill()
    return outcome


def _check(study: Path, logs: Path, outcome: Outcome, links: list[str], server: Server) -> None:
    export = logs / "votes.json"
    command = [sys.executable, "-m", "stackgan_dist.human_rank", "report", str(study), "--json", str(export)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    rows = [row for row in json.loads(export.read_text())["votes"] if row["undone"] is None]
    standing = {(row["rater"], row["position"]) for row in rows}
    assert len(standing) == len(rows), "a vote counts twice"
    assert len(rows) == len(outcome.acknowledged), f"{len(outcome.acknowledged)} acknowledged, {len(rows)} on record"
    # Asked again, a vote is confirmed when it is the one on record, and refused when it is not.
    for number, position, slots in sorted(outcome.acknowledged):
        path = f"{links[number]}/votes/{position}"
        while (status := server.ask("PUT", path, {"ranking": list(slots)})[0]) == 429:
            time.sleep(_AGAIN_S)
        assert status == 200, f"rater {number}'s vote {position} is not what was acknowledged"


def main() -> None:
    """Simulate, then print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path, help="a study; its votes are left alone, a copy is rated")
    parser.add_argument("--raters", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--think", type=float, default=2.0, help="mean seconds between a rater's votes")
    parser.add_argument("--no-kill", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        copy = Path(folder) / "study"
        shutil.copytree(options.study, copy, ignore=shutil.ignore_patterns("votes.sqlite*"))
        outcome = simulate(copy, options.raters, options.seconds, options.think, kill=not options.no_kill)
    times_ms = sorted(1e3 * latency for latency in outcome.latencies_s)
    at = {share: times_ms[min(len(times_ms) - 1, int(share * len(times_ms)))] for share in (0.5, 0.95, 0.99)}
    print(
        f"{options.raters} raters, {len(outcome.acknowledged):,} votes acknowledged and all on record once, "
        f"{outcome.undone} taken back, {outcome.repeated} requests repeated after the kill\n"
        f"a vote took {at[0.5]:.1f} ms (median), {at[0.95]:.1f} ms (95th percentile), {at[0.99]:.1f} ms (99th), "
        f"{times_ms[-1]:.1f} ms at most; {len(times_ms) / options.seconds:.0f} votes/s"
    )


if __name__ == "__main__":
    main()
