"""The routes by which people rank: join, the turn, its pictures, vote, undo."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stackgan_dist.human_rank.study.rating import InvalidRankingError, OutOfTurnError, Rating, Turn, UnknownRaterError
from stackgan_dist.human_rank.web.group_commit import GroupCommit
from stackgan_dist.human_rank.web.limits import Limits, Rate
from stackgan_dist.human_rank.web.requests import address, read_object, take_turn, whole_number

T = TypeVar("T")
_LARGEST_POSITION = 10**6
_MOST_SETS = 1_000
_PICTURE_CACHE = "private, max-age=86400, immutable"


class RankRoutes:
    """Joins the rules of a study to the web."""

    def __init__(self, rating: Rating, commits: GroupCommit, limits: Limits) -> None:
        self._rating, self._commits = rating, commits
        self._joins = Rate(limits.joins_per_minute / 60, limits.joins_per_minute)
        self._requests = Rate(limits.rater_requests_per_s, 4 * limits.rater_requests_per_s)

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/raters", self.join, methods=["POST"]),
            Route("/r/{link:str}/turn", self.turn),
            Route("/r/{link:str}/pictures/{position:int}/{slot:int}.png", self.picture),
            Route("/r/{link:str}/votes/{position:int}", self.vote, methods=["PUT"]),
            Route("/r/{link:str}/votes/{position:int}", self.undo, methods=["DELETE"]),
        ]

    async def join(self, request: Request) -> Response:
        """A new rater's link, {"link": "r/..."}, relative to the first page."""
        take_turn(self._joins, address(request))
        return JSONResponse({"link": "r/" + await self._run(self._rating.join)}, 201)

    async def turn(self, request: Request) -> Response:
        """What is asked next."""
        link = self._link(request)
        return _turn(await self._run(lambda: self._rating.turn(link)))

    async def picture(self, request: Request) -> Response:
        """The pictures in one place of the page; neither name nor date shows which method's they are."""
        link, position, slot = self._link(request), self._position(request), request.path_params["slot"]
        file = await self._run(lambda: self._rating.picture(link, position, slot))
        if file is None:
            raise HTTPException(404, "there is no such picture")
        data = await asyncio.to_thread(file.read_bytes)
        return Response(data, media_type="image/png", headers={"Cache-Control": _PICTURE_CACHE})

    async def vote(self, request: Request) -> Response:
        """{"ranking": [slot, ...]}, best first; answers with the next turn once the vote is on the disk.

        Where ties are asked for, slots that share a place stand in a list: [2, [0, 1]].
        """
        link, position = self._link(request), self._position(request)
        ranking = (await read_object(request)).get("ranking")
        if not isinstance(ranking, list):
            raise HTTPException(422, "ranking must be a list of sets, best first")
        slots = [_place(place) for place in ranking]
        return _turn(await self._run(lambda: self._rating.vote(link, position, slots)))

    async def undo(self, request: Request) -> Response:
        """Take back the last vote; answers with the turn to give it again."""
        link, position = self._link(request), self._position(request)
        return _turn(await self._run(lambda: self._rating.undo(link, position)))

    def _link(self, request: Request) -> str:
        link: str = request.path_params["link"]
        take_turn(self._requests, link)
        return link

    def _position(self, request: Request) -> int:
        return whole_number(request.path_params["position"], "the position", 0, _LARGEST_POSITION)

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._commits.run(work)
        except UnknownRaterError:
            raise HTTPException(404, "nobody has this link; check that it was copied whole") from None
        except OutOfTurnError:
            raise HTTPException(409, "this sentence was ranked already, perhaps in another tab") from None
        except InvalidRankingError as error:
            raise HTTPException(422, str(error)) from None


def _place(place: object) -> int | list[int]:
    if isinstance(place, list):
        return [whole_number(slot, "a set", 0, _MOST_SETS) for slot in place]
    return whole_number(place, "a set", 0, _MOST_SETS)


def _turn(turn: Turn) -> Response:
    return JSONResponse(dataclasses.asdict(turn))
