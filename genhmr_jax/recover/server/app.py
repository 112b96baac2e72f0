"""The routes of the server: the front page, /v1/recover, /healthz and /metrics."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import genhmr_jax
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import Photo
from genhmr_jax.recover.overlapped import THREADS
from genhmr_jax.recover.server import limits as limiting
from genhmr_jax.recover.server import metrics as measuring
from genhmr_jax.recover.server.answers import FORMATS, Answer, format_of
from genhmr_jax.recover.server.front import front
from genhmr_jax.recover.server.jobs import Job, JobQueue
from genhmr_jax.recover.server.limits import Refusal, Uploads, busy
from genhmr_jax.recover.server.settings import Limits
from genhmr_jax.recover.server.worker import Worker

GONE = 499
"""Status in the metrics of a request whose client went away (nginx's number; never sent)."""
_SILENCE = 2.0
"""Seconds without a byte of a refused body, after which the rest of it is not waited for."""
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}
"""Headers of every response that does not set them itself."""
_PAGE_POLICY = "sandbox allow-scripts allow-downloads; frame-ancestors 'none'"
"""Of the viewer page, which has its own strict policy in its head."""
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in limiting.FORMATS
        },
    },
    "responses": {
        "200": {"description": "The people of the photo", "content": {
            kind: {} for kind in FORMATS.values()
        }}
    },
}  # fmt: skip


class Asked(BaseModel):
    """The parameters of /v1/recover; others are refused."""

    model_config = ConfigDict(extra="forbid")
    format: Literal["json", "npz", "glb", "html"] | None = None
    fov: Annotated[float | None, Field(ge=1, le=170)] = None
    focal: Annotated[float | None, Field(ge=1, le=1e6)] = None

    def camera(self) -> dict[str, float]:
        """The options of the camera that are given.

        Raises:
          Refusal: both are.
        """
        given = {"fov": self.fov, "focal": self.focal}
        given = {name: value for name, value in given.items() if value is not None}
        if len(given) > 1:
            raise Refusal(400, "focal", "cannot be combined with fov", "leave one of them out")
        return given


class Service:
    """What the routes share. Its methods run in the event loop."""

    def __init__(
        self, limits: Limits, uploads: Uploads, jobs: JobQueue, worker: Worker,
        metrics: measuring.Metrics,
    ) -> None:  # fmt: skip
        self.limits, self.uploads, self.jobs = limits, uploads, jobs
        self.worker, self.metrics = worker, metrics
        self._decoders = ThreadPoolExecutor(THREADS, "genhmr-decode")

    def state(self) -> str:
        """One of "ready", "starting", "stopping" and "failed"."""
        if self.worker.failure is not None:
            return "failed"
        if self.jobs.closed:
            return "stopping"
        return "ready" if self.worker.ready.is_set() else "starting"

    async def recover(self, request: Request, asked: Asked) -> Response:
        """Answer a photo, and count the request."""
        start, status, format = time.monotonic(), GONE, "none"
        try:
            format = asked.format or format_of(request.headers.get("accept")) or "none"
            if format == "none":
                known = ", ".join(FORMATS.values())
                raise Refusal(406, "Accept", "names no format of answers", f"accept {known}")
            answer = await self._answer(request, asked, format, start + self.limits.timeout)
            status = 200
            return _response(answer, format)
        except ClientDisconnect:
            return Response(status_code=GONE)
        except InputError as error:
            status = getattr(error, "status", 400)
            if status != 408:
                await _drain(request, start)
            raise
        except Exception as error:  # the worker has reported it
            status = 500
            remedy = "look at the server's stderr, and report it"
            raise Refusal(500, "the server", "internal error", remedy) from error
        finally:
            self.metrics.request(status, format, time.monotonic() - start)

    async def _answer(self, request: Request, asked: Asked, format: str, deadline: float) -> Answer:
        """Read, decode and recover a photo, each within the limits."""
        if (state := self.state()) != "ready":
            raise busy(f"is {state}" if state != "failed" else "has failed", 503, 5)
        camera = asked.camera()
        limiting.check_type(request.headers.get("content-type"))
        # A request that cannot be served costs as little as possible: first before its body is
        # read, then before it is decoded.
        self.jobs.check()
        length = request.headers.get("content-length")
        request.state.reading = True
        body = await self.uploads.read(request.stream(), length, deadline)
        photo = await self._decoded(body, deadline)
        job = Job(photo, format, camera)
        self.jobs.put(job)
        return await self._finished(request, job, deadline)

    async def _decoded(self, body: bytes, deadline: float) -> Photo:
        """Decode a photo in a thread. Its bytes are released when the thread is done with them."""
        size = len(body)
        try:
            self.jobs.check()
        except Refusal:
            self.uploads.release(size)
            raise
        decoding = self._decoders.submit(limiting.decode, body, self.limits)
        decoding.add_done_callback(lambda _: self.uploads.release(size))
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await asyncio.wrap_future(decoding)
        except TimeoutError:
            raise busy("had no time to decode the photo", 503) from None

    async def _finished(self, request: Request, job: Job, deadline: float) -> Answer:
        """Wait for the answer of a job, unless the client goes away or the time is over."""
        answer = asyncio.wrap_future(job.answer)
        gone = asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait(
                {answer, gone},
                timeout=max(0.0, deadline - time.monotonic()),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if answer.done():
                return answer.result()
            had_place = self.jobs.abandon(job)
            if gone.done():
                raise ClientDisconnect
            if had_place:
                raise busy("had no time for the photo", 503)
            problem = f"was not recovered within {self.limits.timeout:g} s"
            raise Refusal(504, limiting.PHOTO, problem, "scale the photo down, or try again later")
        finally:
            self.jobs.abandon(job)  # also where this task is cancelled
            answer.cancel()
            gone.cancel()


def make_app(service: Service, hosts: Sequence[str]) -> fastapi.FastAPI:
    """The application.

    Args:
      service: of the routes.
      hosts: names in the Host header that are served; "*": all.
    """
    app = fastapi.FastAPI(
        title="genhmr", version=genhmr_jax.__version__, docs_url=None, redoc_url=None,
        lifespan=_lifespan(service),
    )  # fmt: skip
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    app.add_middleware(SafeHeaders)
    app.add_exception_handler(InputError, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(RequestValidationError, _bad_parameters)
    app.state.limits = service.limits
    content, policy = front(service.limits)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse(content, headers={"content-security-policy": policy})

    @app.get("/healthz")
    async def health() -> JSONResponse:
        state = service.state()
        return JSONResponse({"status": state}, 200 if state == "ready" else 503)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=measuring.CONTENT_TYPE)

    @app.post("/v1/recover", response_class=Response, openapi_extra=_BODY)
    async def recover(request: Request, asked: Annotated[Asked, fastapi.Query()]) -> Response:
        return await service.recover(request, asked)

    return app


class SafeHeaders:
    """Adds _HEADERS to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""

        async def safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                more = [(name, value) for name, value in _HEADERS.items() if name not in own]
                message["headers"] = [*message["headers"], *more]
            await send(message)

        await self.app(scope, receive, safely)


def _lifespan(service: Service) -> Any:
    """Stop the worker after the last request; see serving.serve."""

    @contextlib.asynccontextmanager
    async def lifespan(_: fastapi.FastAPI) -> AsyncIterator[None]:
        yield
        service.jobs.close()

    return lifespan


def _response(answer: Answer, format: str) -> Response:
    headers = {}
    if format == "html":
        headers["content-security-policy"] = _PAGE_POLICY
    elif format != "json":
        headers["content-disposition"] = f'attachment; filename="people.{format}"'
    return Response(answer.body, media_type=answer.media_type, headers=headers)


def _error(
    status: int, where: str, problem: str, remedy: str, retry_after: int | None = None
) -> JSONResponse:
    """The body of every error."""
    content = {"error": {"where": where, "problem": problem, "remedy": remedy}}
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return JSONResponse(content, status, headers)


async def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, InputError)
    status, retry_after = getattr(error, "status", 400), getattr(error, "retry_after", None)
    return _error(status, error.where, error.problem, error.remedy, retry_after)


async def _no_route(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    await _drain(request, time.monotonic())
    remedy = "see docs/server.md for the routes"
    response = _error(error.status_code, "the request", str(error.detail).lower(), remedy)
    response.headers.update(error.headers or {})
    return response


async def _bad_parameters(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    await _drain(request, time.monotonic())
    remedy = "correct it, or leave it out (docs/server.md)"
    return _error(400, str(first["loc"][-1]), first["msg"].lower(), remedy)


async def _disconnected(request: Request) -> None:
    """Wait until the client is gone. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _drain(request: Request, start: float) -> None:
    """Read the rest of a refused body, of which no byte is kept.

    A client that is still sending when the connection is closed may not see the answer. As long as
    bytes arrive, it has as much time as a body that is accepted, from `start` of time.monotonic,
    and as many bytes. One that waits for consent (Expect: 100-continue) has not sent anything, if
    reading has not begun.
    """
    waits = request.headers.get("expect", "").lower() == "100-continue"
    if waits and not getattr(request.state, "reading", False):
        return
    limits: Limits = request.app.state.limits
    chunks, left = request.stream(), limits.max_bytes
    with contextlib.suppress(TimeoutError, ClientDisconnect, RuntimeError, StopAsyncIteration):
        async with asyncio.timeout(start + limits.timeout - time.monotonic()):
            while left >= 0:
                async with asyncio.timeout(_SILENCE):
                    left -= len(await anext(chunks))
