"""What every request passes before anything else looks at it, and the headers that every answer carries."""

from __future__ import annotations

import secrets
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stackgan_dist.human_rank.web.public_url import PublicUrl

_HEADERS = {
    # Scripts, styles and pictures of our own and nothing else; no inline script, no string that becomes HTML.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # a rater's link is a secret
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Robots-Tag": "noindex",
}
_COOKIE = "stackgan_token"
_OPEN = ("/r/", "/assets/")
"""No token is asked for here: a rater's link is as hard to guess, and the assets tell nothing."""
_LONGEST_PATH = 200
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Guard:
    """ASGI middleware.

    Args:
        app: what is guarded.
        token: needed for all but raters' links; None for a server that loopback alone reaches, which then answers only
            requests that name a loopback host: a web page elsewhere must not reach it through a name of its own (DNS
            rebinding).
        public: where a proxy shows the pages. Then requests that name neither its host nor a loopback one are refused,
            and its path is taken off where the proxy has left it on.
    """

    def __init__(self, app: ASGIApp, token: str | None, public: PublicUrl | None = None) -> None:
        self._app, self._token, self._public = app, token, public
        self._base = public.path if public else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer in its place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        headers = Headers(scope=scope)
        answer = self._to_the_folder(scope)
        if answer is None:
            scope = {**scope, "path": self._without_base(scope["path"])}
            answer = self._refused(scope, headers)
        await (answer or self._app)(scope, receive, send_with_headers)

    def _to_the_folder(self, scope: Scope) -> Response | None:
        """From /sub/path to /sub/path/, from where relative links lead to the pages."""
        if not self._base or scope["path"] != self._base:
            return None
        query = scope["query_string"].decode("latin-1")
        return RedirectResponse(self._base.rpartition("/")[2] + "/" + (f"?{query}" if query else ""), 303)

    def _without_base(self, path: str) -> str:
        return path[len(self._base) :] if self._base and path.startswith(self._base + "/") else path

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        if len(scope["path"]) > _LONGEST_PATH:
            return PlainTextResponse("there is no page with such a long name", 414)
        host = headers.get("host", "")
        on_loopback = _hostname(host) in LOOPBACK
        if self._public and not on_loopback and host.lower() not in self._public.host_headers:
            return PlainTextResponse(f"this server answers as {self._public}, not as {host}", 421)
        if self._token is None and not on_loopback:
            return PlainTextResponse("this server answers on loopback only: open it as http://127.0.0.1", 421)
        if scope["method"] not in ("GET", "HEAD") and not self._from_our_page(headers, host, on_loopback):
            return PlainTextResponse("this request comes from another site", 403)
        if self._token is not None and not scope["path"].startswith(_OPEN):
            return self._without_token(scope, headers)
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        assert self._token is not None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if _same(given, self._token):
            # Out of the address bar, the history and the logs.
            answer = RedirectResponse("./" + "../" * (scope["path"].count("/") - 1), 303)
            answer.set_cookie(
                _COOKIE,
                self._token,
                path=self._base + "/",
                secure=self._public is not None and self._public.scheme == "https",
                httponly=True,
                samesite="strict",
            )
            return answer
        if _same(_cookie(headers), self._token):
            return None
        return PlainTextResponse("open the link with the token that the server printed when it started", 401)

    def _from_our_page(self, headers: Headers, host: str, on_loopback: bool) -> bool:
        """Browsers tell where a request was made; other clients, which hold no cookies of anybody, need not."""
        origin = headers.get("origin")
        ours = {self._public.origin} if self._public else {f"http://{host}", f"https://{host}"}
        if on_loopback:
            ours.add(f"http://{host}")
        return headers.get("sec-fetch-site", "same-origin") == "same-origin" and (origin is None or origin in ours)


def _same(given: str, token: str) -> bool:
    return secrets.compare_digest(given.encode(), token.encode())


def _cookie(headers: Headers) -> str:
    for part in headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == _COOKIE:
            return value
    return ""


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # "[" and the like
        return None
