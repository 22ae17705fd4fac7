"""The server without a browser: what it refuses, what it never tells, and what survives a kill."""

from __future__ import annotations

import io
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from human_rank.web.pages import Server, serving
from human_rank.web.simulated_raters import simulate
from PIL import Image


@pytest.fixture(scope="module")
def server(
    built_study: Path, three_runs: tuple[Path, Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A study and a Stage-II run to try, on loopback."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copytree(built_study, folder / "study")
    with serving(folder / "log", folder / "study", "--run", three_runs[2]) as running:
        yield running
        assert "Traceback" not in running.output


def _join(server: Server) -> str:
    status, answer = server.json("POST", "/raters")
    assert status == 201
    return f"/{answer['link']}"


class TestHeaders:
    @pytest.mark.parametrize("path", ["/", "/try", "/r/nobody", "/about", "/assets/rank.js", "/nowhere", "/r/x/turn"])
    def test_every_answer_is_guarded(self, server: Server, path: str) -> None:
        _, headers, _ = server.ask("GET", path)
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["img-src"] == policy["connect-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "server" not in headers

    def test_pages_name_nothing_from_elsewhere(self, server: Server) -> None:
        for path in ("/", "/try", "/r/x", "/assets/style.css", "/assets/rank.js", "/assets/try.js", "/assets/page.js"):
            status, _, content = server.ask("GET", path)
            assert status == 200
            assert b"http:" not in content, path
            assert b"https:" not in content, path
            assert b"style=" not in content
            assert b"innerHTML" not in content


class TestHostileRequests:
    @pytest.mark.parametrize(
        "path",
        [
            "/assets/../app.py", "/assets/..%2fapp.py", "/assets/%2e%2e/app.py", "/assets//etc/passwd",
            "/../../etc/passwd",
            "/r/../../study.json", "/r/x/pictures/0/../../study.json", "/jobs/..%2f..%2fetc/0/0/1.png",
            "/study.json", "/votes.sqlite", "/token", "/assets/style.css%00.html",
        ],
    )  # fmt: skip
    def test_no_path_reaches_the_file_system(self, server: Server, path: str) -> None:
        status, _, content = server.ask("GET", path)
        assert status == 404
        assert b"root:" not in content
        assert b"checkpoint" not in content

    @pytest.mark.parametrize("number", ["-1", "99999999", "9" * 190, "1.5", "x"])
    def test_numbers_in_paths(self, server: Server, number: str) -> None:
        link = _join(server)
        assert server.ask("GET", f"{link}/pictures/{number}/0.png")[0] in (404, 414, 422)
        assert server.ask("GET", f"{link}/pictures/0/{number}.png")[0] in (404, 414)
        assert server.ask("PUT", f"{link}/votes/{number}", {"ranking": [0, 1, 2]})[0] in (404, 409, 414, 422)

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            (b"", 400), (b"{", 400), (b"[]", 400), (b'"x"', 400), (b"\xff\xfe", 400), (b"[" * 8000, 400),
            (b"9" * 8000, 400), (b"{" + b" " * 9000 + b"}", 413), (b"{}", 422), (b'{"ranking": "012"}', 422),
            (b'{"ranking": [0, 1]}', 422), (b'{"ranking": [0, 1, 1]}', 422), (b'{"ranking": [0, 1, 2.0]}', 422),
            (b'{"ranking": [0, 1, true]}', 422), (b'{"ranking": [0, 1, null]}', 422), (b'{"ranking": [0, 1, 3]}', 422),
            (b'{"ranking": [0, 1, NaN]}', 422), (b'{"ranking": []}', 422), (b'{"ranking": [0, 1, 2, 3]}', 422),
        ],
    )  # fmt: skip
    def test_votes_that_are_none(self, server: Server, body: bytes, status: int) -> None:
        link = _join(server)
        answer, _, content = server.ask("PUT", f"{link}/votes/0", body, {"Content-Type": "application/json"})
        assert answer == status, content
        assert json.loads(content)["error"]
        assert server.json("GET", f"{link}/turn")[1]["position"] == 0

    def test_other_types_of_content(self, server: Server) -> None:
        link = _join(server)
        body = b'{"ranking": [0, 1, 2]}'
        for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
            assert server.ask("PUT", f"{link}/votes/0", body, {"Content-Type": kind})[0] == 415

    @pytest.mark.parametrize(
        "headers",
        [
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ],
    )
    def test_other_sites_cannot_write(self, server: Server, headers: dict[str, str]) -> None:
        assert server.ask("POST", "/raters", None, headers)[0] == 403

    def test_other_names_for_loopback_are_refused(self, server: Server) -> None:
        for host in ("evil.example", "127.0.0.1.evil.example", "[", "", "evil@example:80"):
            assert server.ask("GET", "/", None, {"Host": host})[0] == 421
        assert server.ask("GET", "/", None, {"Host": f"localhost:{server.port}"})[0] == 200

    def test_a_body_that_does_not_say_its_length(self, server: Server) -> None:
        link = _join(server)
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            head = f"PUT {link}/votes/0 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            connection.sendall((head + "Transfer-Encoding: chunked\r\n\r\n").encode())
            connection.sendall(b"2000\r\n" + b" " * 0x2000 + b"\r\n" + b"2000\r\n" + b" " * 0x2000 + b"\r\n0\r\n\r\n")
            assert b" 413 " in connection.recv(100)

    def test_unknown_raters(self, server: Server) -> None:
        for method, path in (("GET", "turn"), ("GET", "pictures/0/0.png"), ("DELETE", "votes/0")):
            assert server.ask(method, f"/r/nobody/{path}")[0] == 404


class TestRates:
    def test_one_rater_cannot_flood(self, server: Server) -> None:
        link, other = _join(server), _join(server)
        begin = time.monotonic()
        answers = [server.ask("GET", f"{link}/turn") for _ in range(400)]
        if time.monotonic() - begin < 8:  # 400 requests are 120 at once and 30 a second
            refused = [headers for status, headers, _ in answers if status == 429]
            assert refused
            assert int(refused[0]["retry-after"]) >= 1
        assert server.ask("GET", f"{other}/turn")[0] == 200

    def test_joining_has_a_rate(self, study: Path, tmp_path: Path) -> None:
        with serving(tmp_path / "log", study, "--joins-per-minute", 3) as server:
            assert [server.ask("POST", "/raters")[0] for _ in range(4)] == [201, 201, 201, 429]


class TestToken:
    def test_elsewhere_than_on_loopback_a_token_is_needed(self, study: Path, tmp_path: Path) -> None:
        with serving(tmp_path / "log", study, "--host", "0.0.0.0") as server:
            token = server.url.partition("?token=")[2]
            assert len(token) >= 32
            assert (study / "token").read_text().strip() == token
            assert (study / "token").stat().st_mode & 0o777 == 0o600
            for path in ("/", "/about", "/raters", "/?token=", f"/?token={token[:-1]}", "/?token=é"):
                assert server.ask("GET", path.replace("é", "%C3%A9"))[0] == 401
            assert server.ask("POST", "/raters", None, {"Cookie": "stackgan_token=x"})[0] == 401
            status, headers, _ = server.ask("GET", f"/?token={token}")
            assert (status, headers["location"]) == (303, "./")
            assert "httponly" in headers["set-cookie"].lower()
            assert "samesite=strict" in headers["set-cookie"].lower()
            cookie = {"Cookie": headers["set-cookie"].partition(";")[0]}
            assert server.ask("GET", "/about", None, cookie)[0] == 200
            status, _, content = server.ask("POST", "/raters", None, cookie)
            assert status == 201
            link = json.loads(content)["link"]
            assert server.ask("GET", f"/{link}/turn")[0] == 200  # a rater's link is enough
        with serving(tmp_path / "again", study, "--host", "0.0.0.0") as server:
            assert server.url.endswith(token)


class TestGenerating:
    def _generate(self, server: Server, **prompt: object) -> dict[str, object]:
        status, job = server.json("POST", "/jobs", {"sentence": "a red bird", "seed": 3, "count": 2, **prompt})
        assert status == 202, job
        while job["state"] in ("waiting", "generating"):
            time.sleep(0.05)
            job = server.json("GET", f"/jobs/{job['id']}")[1]
        assert job["state"] == "done", job
        return dict(job)

    def _picture(self, server: Server, job: dict[str, object], where: str) -> bytes:
        status, headers, content = server.ask("GET", f"/jobs/{job['id']}/{where}.png")
        assert (status, headers["content-type"]) == (200, "image/png")
        return content

    def test_pictures_are_those_of_generate(
        self, server: Server, three_runs: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from stackgan_dist import generate

        job = self._generate(server)
        arguments = ["--run", three_runs[2], "--out", tmp_path, "--seed", 3, "--count", 2, "a red bird"]
        monkeypatch.setattr("sys.argv", ["generate", *map(str, arguments)])
        generate.main()
        for picture in range(2):
            for stage, end in ((1, "-stage1"), (2, "")):
                ours = self._picture(server, job, f"0/{picture}/{stage}")
                theirs = Image.open(tmp_path / f"000-{picture:03d}{end}.png")
                shown: Any = Image.open(io.BytesIO(ours))
                assert (shown.mode, shown.size, shown.tobytes()) == (theirs.mode, theirs.size, theirs.tobytes())
                assert shown.text == {}  # where this machine keeps its checkpoints is nobody's business

    def test_between_two_sentences(self, server: Server) -> None:
        job = self._generate(server, other="a blue bird with white wings")
        assert (job["steps"], job["total"]) == (9, 18)
        pictures = [self._picture(server, job, f"{step}/1/2") for step in range(9)]
        assert len(set(pictures)) == 9
        alone = self._generate(server, sentence="a blue bird with white wings")
        assert self._picture(server, alone, "0/0/2")[:4] == b"\x89PNG"
        sheet = self._picture(server, job, "sheet")
        assert len(sheet) > len(pictures[0])
        for where in ("9/0/1", "0/2/1", "0/0/3", "0/0/0"):
            assert server.ask("GET", f"/jobs/{job['id']}/{where}.png")[0] == 404

    @pytest.mark.parametrize(
        ("prompt", "message"),
        [
            ({"sentence": ""}, "the sentence is empty"),
            ({"sentence": " \t\n"}, "the sentence is empty"),
            ({"sentence": None}, "the sentence must be text"),
            ({"sentence": ["a"]}, "the sentence must be text"),
            ({"sentence": "x" * 301}, "the sentence has 301 characters; 300 is the most"),
            ({"sentence": "a\x00bird"}, "characters that cannot be printed"),
            ({"sentence": "a\u202ebird"}, "characters that cannot be printed"),
            ({"sentence": "\ud800 bird"}, "characters that cannot be printed"),
            ({"sentence": "!!! ?"}, "has no word to encode"),
            ({"sentence": "a bird", "other": " "}, "the second sentence is empty"),
            ({"sentence": "a bird", "seed": -1}, "the seed must be a whole number"),
            ({"sentence": "a bird", "seed": 1.5}, "the seed must be a whole number"),
            ({"sentence": "a bird", "seed": None}, "the seed must be a whole number"),
            ({"sentence": "a bird", "count": 9}, "the number of pictures must be a whole number from 1 to 8"),
        ],
    )
    def test_refusals(self, server: Server, prompt: dict[str, object], message: str) -> None:
        status, answer = server.json("POST", "/jobs", prompt)
        assert status == 422
        assert message in answer["error"]

    def test_markup_is_a_sentence_like_any_other(self, server: Server) -> None:
        status, _, content = server.ask("POST", "/jobs", {"sentence": "<script>alert(1)</script>"})
        assert status == 202
        assert b"<script>" not in content


@pytest.mark.parametrize(
    ("raters", "seconds"), [(20, 4), pytest.param(200, 60, marks=pytest.mark.slow)], ids=["short", "long"]
)
def test_a_killed_server_loses_no_vote(study: Path, raters: int, seconds: float) -> None:
    outcome = simulate(study, raters, seconds, think_s=seconds / 6)  # its six questions take the raters all the time
    assert len(outcome.acknowledged) >= raters
    assert outcome.repeated > 0  # the kill was felt
