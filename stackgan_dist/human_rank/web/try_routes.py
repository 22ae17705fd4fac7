"""The routes of the try page: ask for pictures, see how far they are, get them."""

from __future__ import annotations

import asyncio
from typing import Any

from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from stackgan_dist.errors import UserError
from stackgan_dist.generation.grid import labelled_grid, to_png
from stackgan_dist.human_rank.web.generation_queue import GenerationQueue, Job, QueueFullError
from stackgan_dist.human_rank.web.limits import Limits, Rate
from stackgan_dist.human_rank.web.picture_generator import PictureGenerator, Prompt
from stackgan_dist.human_rank.web.requests import address, read_object, take_turn, whole_number

LONGEST_SENTENCE = 300
MOST_PICTURES = 8
_SHEET_CELL = 128
_PICTURE_CACHE = "private, max-age=3600, immutable"


class TryRoutes:
    """Joins a generator and a queue to the web."""

    def __init__(self, generator: PictureGenerator, limits: Limits) -> None:
        self._generator = generator
        self._queue = GenerationQueue(generator.pictures, limits.jobs_waiting)
        self._rate = Rate(limits.jobs_per_minute / 60, limits.jobs_per_minute)

    def routes(self) -> list[Route]:
        """For the application."""
        return [
            Route("/jobs", self.submit, methods=["POST"]),
            Route("/jobs/{id:str}", self.state),
            Route("/jobs/{id:str}/sheet.png", self.sheet),
            Route("/jobs/{id:str}/{step:int}/{picture:int}/{stage:int}.png", self.picture),
        ]

    def about(self) -> dict[str, int]:
        """What the page must know before it asks."""
        return {"stages": self._generator.stages, "longest": LONGEST_SENTENCE, "most": MOST_PICTURES}

    async def submit(self, request: Request) -> Response:
        """{"sentence", "other": sentence or null, "seed", "count"}: a job is queued."""
        fields = await read_object(request)
        prompt = Prompt(
            sentence=_sentence(fields.get("sentence"), "the sentence"),
            other=None if fields.get("other") is None else _sentence(fields["other"], "the second sentence"),
            seed=whole_number(fields.get("seed", 0), "the seed", 0, 2**31 - 1),
            count=whole_number(fields.get("count", 4), "the number of pictures", 1, MOST_PICTURES),
        )
        take_turn(self._rate, address(request))
        for sentence in (prompt.sentence, prompt.other):
            if sentence is not None:
                await self._check(sentence)
        try:
            job = self._queue.submit(prompt)
        except QueueFullError:
            raise HTTPException(
                503, "many others are waiting already; try again in a moment", {"Retry-After": "5"}
            ) from None
        return JSONResponse(self._describe(job), 202)

    async def state(self, request: Request) -> Response:
        """How far a job is."""
        return JSONResponse(self._describe(self._job(request)))

    async def picture(self, request: Request) -> Response:
        """One picture, as soon as it is there."""
        job, where = self._job(request), request.path_params
        number = where["step"] * job.prompt.count + where["picture"]
        stages = self._generator.stages
        if where["picture"] >= job.prompt.count or number >= len(job.pictures) or not 1 <= where["stage"] <= stages:
            raise HTTPException(404, "there is no such picture")
        picture = job.pictures[number].stages[where["stage"] - 1]
        data = await asyncio.to_thread(to_png, picture)
        return Response(data, media_type="image/png", headers={"Cache-Control": _PICTURE_CACHE})

    async def sheet(self, request: Request) -> Response:
        """All pictures on one sheet, with the words beside them."""
        job = self._job(request)
        if job.state != "done":
            raise HTTPException(404, "the pictures are not finished")
        data = await asyncio.to_thread(self._sheet, job)
        return Response(data, media_type="image/png")

    def _sheet(self, job: Job) -> bytes:
        prompt = job.prompt
        rows: list[list[Image.Image]] = []
        labels = []
        for step in range(prompt.steps):
            of_step = job.pictures[step * prompt.count : (step + 1) * prompt.count]
            rows.append([picture for one in of_step for picture in one.stages])
            if prompt.other is None or step == 0:
                labels.append(prompt.sentence)
            else:
                labels.append(prompt.other if step == prompt.steps - 1 else f"{step} of {prompt.steps - 1}")
        headings = self._generator.headings
        cell = max(_SHEET_CELL, rows[0][-1].width)
        return to_png(labelled_grid(rows, labels, headings * prompt.count, cell, together=len(headings)))

    async def _check(self, sentence: str) -> None:
        try:
            await asyncio.to_thread(self._generator.read, sentence)
        except UserError as error:
            raise HTTPException(422, str(error)) from None

    def _job(self, request: Request) -> Job:
        job = self._queue.job(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "these pictures are not kept any more; generate them again")
        return job

    def _describe(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.id,
            "state": job.state,
            "ahead": self._queue.ahead(job),
            "generated": len(job.pictures),
            "total": job.prompt.count * job.prompt.steps,
            "steps": job.prompt.steps,
            "count": job.prompt.count,
            "stages": self._generator.stages,
            "error": job.error,
        }


def _sentence(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise HTTPException(422, f"{name} must be text")
    if len(value) > LONGEST_SENTENCE:
        raise HTTPException(422, f"{name} has {len(value):,} characters; {LONGEST_SENTENCE} is the most")
    sentence = " ".join(value.split())
    if not sentence:
        raise HTTPException(422, f"{name} is empty; say what to generate")
    if not sentence.isprintable():
        raise HTTPException(422, f"{name} has characters that cannot be printed")
    return sentence
