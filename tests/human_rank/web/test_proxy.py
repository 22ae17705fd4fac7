"""The server behind a real nginx, with TLS and below a path: pages, cookie, origins, and whom the rates count."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from free_ports import free_port
from human_rank.web.nginx import HOST, documented, missing_nginx, nginx
from human_rank.web.pages import Server, missing_browser, open_browser, serving

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.web.public_url import PublicUrl, check_proxies

needs_nginx = pytest.mark.skipif(missing_nginx() is not None, reason=str(missing_nginx()))


@dataclass
class Proxied:
    """A server and the proxy before it."""

    server: Server
    port: int
    tls: ssl.SSLContext
    url: str
    """What the server prints for raters, token included."""

    def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, source: str = "127.0.0.1"
    ) -> tuple[int, dict[str, str], bytes]:
        """One request through the proxy, from the loopback address `source`."""
        connection = http.client.HTTPSConnection(
            HOST, self.port, timeout=60, context=self.tls, source_address=(source, 0)
        )
        try:
            connection.request(method, path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def enter(self) -> dict[str, str]:
        """The cookie for the token, as a header."""
        status, headers, _ = self.ask("GET", "/birds/" + self.url.partition("/birds/")[2])
        assert (status, headers["location"]) == (303, "./")
        return {"Cookie": headers["set-cookie"].partition(";")[0]}


@contextmanager
def _proxied(folder: Path, study: Path, *arguments: object, takes_path_off: bool = False) -> Iterator[Proxied]:
    port = free_port()
    public = ["--public-url", f"https://{HOST}:{port}/birds", "--trusted-proxy", "127.0.0.1"]
    with serving(folder / "server.log", study, *public, *arguments) as server:
        block = documented(server.port, port, folder / "nginx", takes_path_off=takes_path_off)
        found = re.search(r"https://\S+", server.output)
        assert found
        with nginx(folder / "nginx", port, block) as tls:
            yield Proxied(server, port, tls, found[0])


@needs_nginx
class TestProxy:
    @pytest.mark.parametrize("takes_path_off", [False, True])
    def test_pages_and_links_stay_below_the_path(self, study: Path, tmp_path: Path, takes_path_off: bool) -> None:
        with _proxied(tmp_path, study, takes_path_off=takes_path_off) as proxied:
            assert proxied.ask("GET", "/birds/")[0] == 401
            cookie = proxied.enter()
            status, _, page = proxied.ask("GET", "/birds/", cookie)
            assert status == 200
            links = re.findall(rb'(?:src|href)="([^"]+)"', page)
            assert links
            assert not [link for link in links if link.startswith((b"/", b"http"))]
            for link in links:
                assert proxied.ask("GET", f"/birds/{link.decode()}", cookie)[0] == (404 if link == b"try" else 200)
            status, _, content = proxied.ask("POST", "/birds/raters", cookie)
            link = json.loads(content)["link"]
            assert status == 201
            assert link.startswith("r/")
            assert proxied.ask("GET", f"/birds/{link}/turn")[0] == 200
            status, headers, _ = proxied.ask("GET", f"/birds/{link}/")  # a slash that somebody's mail program added
            assert headers["location"] == f"../{link[2:]}"
            assert proxied.ask("GET", "/elsewhere/")[0] == 404

    def test_the_cookie_is_for_tls_and_the_path_alone(self, study: Path, tmp_path: Path) -> None:
        with _proxied(tmp_path, study) as proxied:
            _, headers, _ = proxied.ask("GET", "/birds/" + proxied.url.partition("/birds/")[2])
            cookie = headers["set-cookie"].lower()
            assert {"secure", "httponly", "samesite=strict", "path=/birds/"} <= set(cookie.split("; "))

    def test_only_its_own_host_and_origin(self, study: Path, tmp_path: Path) -> None:
        with _proxied(tmp_path, study) as proxied:
            cookie = proxied.enter()
            origin = f"https://{HOST}:{proxied.port}"
            assert proxied.ask("POST", "/birds/raters", {**cookie, "Origin": origin})[0] == 201
            for foreign in (f"https://{HOST}", "https://evil.example", "null"):
                assert proxied.ask("POST", "/birds/raters", {**cookie, "Origin": foreign})[0] == 403
            assert proxied.ask("GET", "/birds/", {**cookie, "Host": "evil.example"})[0] == 421

    def test_every_rater_has_a_rate_of_their_own(self, study: Path, tmp_path: Path) -> None:
        with _proxied(tmp_path, study, "--joins-per-minute", 2) as proxied:
            cookie = proxied.enter()

            def join(source: str, **headers: str) -> int:
                return proxied.ask("POST", "/birds/raters", {**cookie, **headers}, source)[0]

            assert [join("127.0.0.2") for _ in range(3)] == [201, 201, 429]
            assert join("127.0.0.3") == 201
            assert join("127.0.0.2", **{"X-Forwarded-For": "127.0.0.9"}) == 429  # the proxy says who it is

    def test_only_the_trusted_proxy_may_say_who_asks(self, study: Path, tmp_path: Path) -> None:
        with serving(tmp_path / "log", study, "--joins-per-minute", 2, "--trusted-proxy", "127.0.0.7") as server:
            claims = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(3)]
            assert [server.ask("POST", "/raters", None, claim)[0] for claim in claims] == [201, 201, 429]

    @pytest.mark.skipif(missing_browser() is not None, reason=str(missing_browser()))
    def test_ranking_and_trying_in_a_browser(
        self, study: Path, three_runs: tuple[Path, Path, Path], tmp_path: Path
    ) -> None:
        with _proxied(tmp_path, study, "--run", three_runs[2]) as proxied:
            browser = open_browser(trusts_any_certificate=True)
            try:

                def until(script: str) -> None:
                    deadline = time.monotonic() + 60
                    while not browser.execute_script(f"return {script}"):
                        assert time.monotonic() < deadline, (script, browser.find_element("tag name", "body").text)
                        time.sleep(0.05)

                browser.get(proxied.url)
                until("!document.getElementById('study').hidden && !document.getElementById('try').hidden")
                browser.find_element("id", "join").click()
                until("document.querySelectorAll('.set').length == 3")
                until("[...document.querySelectorAll('.set img')].every((i) => i.complete && i.naturalWidth > 0)")
                assert browser.current_url.startswith(f"https://{HOST}:{proxied.port}/birds/r/")
                for picture_set in browser.find_elements("css selector", ".set"):
                    picture_set.click()
                browser.find_element("id", "confirm").click()
                until("document.getElementById('count').textContent.startsWith('2 of')")
                browser.save_screenshot(str(tmp_path / "rank.png"))

                browser.get(f"https://{HOST}:{proxied.port}/birds/")
                until("!document.getElementById('try').hidden")
                browser.find_element("css selector", "#try a").click()
                until("document.getElementById('number')?.max")
                browser.find_element("id", "sentence").send_keys("a small red bird")
                browser.find_element("id", "generate").click()
                until("!document.getElementById('sheet').hidden")
                until("[...document.querySelectorAll('#pictures img')].every((i) => i.complete && i.naturalWidth > 0)")
                browser.save_screenshot(str(tmp_path / "try.png"))
                browser.find_element("css selector", ".brand a").click()
                until("!document.getElementById('study').hidden")
                assert browser.get_log("browser") == []
            finally:
                browser.quit()


def test_without_a_proxy_nothing_but_loopback_is_answered(study: Path, tmp_path: Path) -> None:
    with serving(tmp_path / "log", study) as server:
        assert server.ask("GET", "/", None, {"Host": "example.org"})[0] == 421


@pytest.mark.parametrize(
    ("text", "origin", "path", "shown"),
    [
        ("https://example.org", "https://example.org", "", "https://example.org/"),
        ("https://Example.org:443/Birds/", "https://example.org", "/Birds", "https://example.org/Birds/"),
        ("http://[::1]:8080/a/b-c", "http://[::1]:8080", "/a/b-c", "http://[::1]:8080/a/b-c/"),
    ],
)
def test_public_urls(text: str, origin: str, path: str, shown: str) -> None:
    url = PublicUrl.parse(text)
    assert (url.origin, url.path, str(url)) == (origin, path, shown)


@pytest.mark.parametrize(
    "text",
    [
        "example.org/birds", "ftp://example.org", "https://", "https://*.example.org", "https://user@example.org",
        "https://example.org/?a=1", "https://example.org/#a", "https://example.org/../x", "https://example.org//x",
        "https://example.org/a b", "https://example.org:x", "https://[::1", "https://example.org/r", "*",
        "https://example.org/try/it", "https://example.org\r\nX: y",
    ],
)  # fmt: skip
def test_addresses_that_cannot_be_public(text: str) -> None:
    with pytest.raises(UserError, match="--public-url"):
        PublicUrl.parse(text)


@pytest.mark.parametrize("address", ["*", "proxy.example", "0.0.0.0/0", "::/0", "10.0.0.1/8", ""])
def test_proxies_are_named_one_by_one(address: str) -> None:
    check_proxies(("127.0.0.1", "10.0.0.0/8", "::1"))
    with pytest.raises(UserError, match="--trusted-proxy"):
        check_proxies((address,))
