"""Serving the pages: what is opened, where it is bound, and the token where that is not loopback."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from stackgan_dist.errors import UserError
from stackgan_dist.human_rank.study.folder import StudyFolder
from stackgan_dist.human_rank.study.rating import Rating
from stackgan_dist.human_rank.web.app import create_app
from stackgan_dist.human_rank.web.limits import Limits
from stackgan_dist.human_rank.web.public_url import PublicUrl, check_proxies
from stackgan_dist.human_rank.web.security import LOOPBACK
from stackgan_dist.machine import usable_cores

if TYPE_CHECKING:
    from stackgan_dist.human_rank.web.try_routes import TryRoutes

_MOST_CONNECTIONS = 2_000
_BACKLOG = 1_024
_LARGEST_HEAD_BYTES = 16 * 1024
_LONGEST_GOODBYE_S = 5


def serve_pages(
    study: Path | None,
    run: str | None,
    *,
    raw: bool,
    device: str | None,
    host: str,
    port: int,
    joins_per_minute: float,
    public_url: str | None = None,
    trusted_proxy: tuple[str, ...] = (),
) -> None:
    """Serve until SIGINT or SIGTERM. UserError when something cannot be opened or bound."""
    public = None if public_url is None else PublicUrl.parse(public_url)
    check_proxies(trusted_proxy)
    folder = None if study is None else StudyFolder(study)
    rating = None if folder is None else Rating(folder)
    limits = Limits(joins_per_minute=joins_per_minute)
    trial = None if run is None else _trial(run, raw, device, limits)
    token = None if host in LOOPBACK and public is None else _token(folder)
    app = ProxyHeadersMiddleware(create_app(rating, trial, token, limits, public), list(trusted_proxy))  # type: ignore[arg-type]
    listener = _bind(host, port)
    shown = f"[{host}]" if ":" in host else host
    query = "" if token is None else f"/?token={token}"
    here = f"http://{shown}:{listener.getsockname()[1]}"
    if public is None:
        print(f"serving at {here}{query}  (end with Ctrl-C)", flush=True)
    else:
        print(f"serving at {here} what a proxy shows at {str(public)[:-1]}{query}  (end with Ctrl-C)", flush=True)
        if not trusted_proxy:
            print("all raters share one rate, that of the proxy; name it with --trusted-proxy 127.0.0.1", flush=True)
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,  # access logs would hold raters' links
        server_header=False,
        proxy_headers=False,  # anybody can send X-Forwarded-For; it is believed above, of a trusted proxy
        h11_max_incomplete_event_size=_LARGEST_HEAD_BYTES,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=_LONGEST_GOODBYE_S,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _trial(run: str, raw: bool, device: str | None, limits: Limits) -> TryRoutes:
    import torch

    from stackgan_dist.devices import default_device, usable_device
    from stackgan_dist.human_rank.web.picture_generator import PictureGenerator
    from stackgan_dist.human_rank.web.try_routes import TryRoutes
    from stackgan_dist.runs.trained import load_trained

    trained = load_trained(run, print, raw=raw)
    # One core stays free to answer: generating must not hold up votes.
    torch.set_num_threads(max(1, min(torch.get_num_threads(), usable_cores() - 1)))
    where = usable_device(device or default_device())
    return TryRoutes(PictureGenerator(trained, where), limits)


def _token(folder: StudyFolder | None) -> str:
    """The study's token, made when there is none, readable by its owner alone; without a study, one for this start."""
    token = secrets.token_urlsafe(24)
    if folder is None:
        return token
    try:
        with os.fdopen(os.open(folder.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(token + "\n")
    except FileExistsError:
        token = folder.token_file.read_text().strip()
        if len(token) < 16:
            raise UserError(f"{folder.token_file} holds no token of 16 characters or more; remove it") from None
    except OSError as error:
        raise UserError(f"cannot write {folder.token_file}: {error.strerror}; make the folder writable") from error
    return token


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)  # from here on nobody is turned away, so the address may be printed
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot bind {host} port {port}: {reason}; choose another --host or --port") from error
    return listener
