"""The application: which pages and routes there are for what is served."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from stackgan_dist.human_rank.study.order import tasks_asked
from stackgan_dist.human_rank.study.rating import Rating
from stackgan_dist.human_rank.web.group_commit import GroupCommit
from stackgan_dist.human_rank.web.limits import Limits
from stackgan_dist.human_rank.web.public_url import PublicUrl
from stackgan_dist.human_rank.web.rank_routes import RankRoutes
from stackgan_dist.human_rank.web.requests import failure, refusal
from stackgan_dist.human_rank.web.security import Guard

if TYPE_CHECKING:
    from stackgan_dist.human_rank.web.try_routes import TryRoutes  # imports torch, which a study alone does not need

_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_ASSETS = ("style.css", "page.js", "index.js", "rank.js", "try.js", "icon.svg")


def create_app(
    rating: Rating | None, trial: TryRoutes | None, token: str | None, limits: Limits, public: PublicUrl | None = None
) -> Guard:
    """The pages for a study (`rating`), for a run (`trial`), or both. `token` and `public` as for Guard.

    Every link in them is relative, so that they work below whatever path a proxy shows them.
    """
    about: dict[str, Any] = {"study": None, "run": None}

    async def describe(_: Request) -> Response:
        return JSONResponse(about)

    routes = [Route("/", _page("index.html")), Route("/about", describe)]
    routes += [Route(f"/assets/{name}", _page(name)) for name in _ASSETS]
    if rating is not None:
        routes += [Route("/r/{link:str}", _page("rank.html")), Route("/r/{link:str}/", _without_slash)]
        routes += RankRoutes(rating, GroupCommit(rating.votes), limits).routes()
        study = rating.study
        about["study"] = {
            "sets": study.at_once,
            "images": study.images,
            "sentences": tasks_asked(study, 0),
        }
    if trial is not None:
        routes += [Route("/try", _page("try.html")), Route("/try/", _without_slash), *trial.routes()]
        about["run"] = trial.about()
    app = Starlette(routes=routes, exception_handlers={HTTPException: refusal, Exception: failure})
    app.router.redirect_slashes = False  # to an absolute address, which is wrong behind a proxy
    return Guard(
        app, token, public
    )  # around all of it: as Starlette's middleware it would miss the answers to our own faults


async def _without_slash(request: Request) -> Response:
    return RedirectResponse("../" + request.url.path.rstrip("/").rpartition("/")[2])


def _page(name: str) -> Callable[[Request], Awaitable[Response]]:
    """A route's answer: a file of the package, read once. No request has a say in which."""
    data = (files("stackgan_dist.human_rank.web") / "pages" / name).read_bytes()
    media_type = _TYPES[name.rpartition(".")[2]]

    async def answer(_: Request) -> Response:
        return Response(data, media_type=media_type)

    return answer
