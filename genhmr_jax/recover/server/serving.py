"""Runs the server until a signal, within bounded times."""

import asyncio
import os
import signal
import socket
import threading
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import Photo
from genhmr_jax.io.terminal import say
from genhmr_jax.recover.options import RecoverOptions
from genhmr_jax.recover.photo import Recoverer
from genhmr_jax.recover.server.app import Service, make_app
from genhmr_jax.recover.server.jobs import JobQueue
from genhmr_jax.recover.server.limits import Uploads
from genhmr_jax.recover.server.metrics import Metrics
from genhmr_jax.recover.server.settings import Limits
from genhmr_jax.recover.server.worker import Worker

LOOPBACK = ("localhost", "127.0.0.1", "::1", "[::1]")
"""Names of this machine in a Host header."""
HEAD_SECONDS = 20
"""For the head of a request, and between two requests of a connection."""
READ_SECONDS = 120
"""For a client to read an answer."""
STOP_SECONDS = 5
"""After the time of the last request, until the process ends."""


class Protocol(H11Protocol):
    """uvicorn's protocol, which closes connections that send no request or read no answer."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the time of the first request."""
        super().connection_made(transport)
        self._expect_request(self.cycle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection, which a timer would keep in memory."""
        super().connection_lost(exc)
        self._set_timer(None)

    def on_response_complete(self) -> None:
        """Start the time of the next request."""
        last = self.cycle
        super().on_response_complete()  # the next request may have begun, if it has arrived already
        self._expect_request(last)

    def _expect_request(self, last: Any) -> None:
        self._set_timer(self.loop.call_later(HEAD_SECONDS, self._close_idle, last))

    def _close_idle(self, last: Any) -> None:
        """Close the connection if there is no request after the last one."""
        if self.cycle is last:
            self.transport.close()  # after what is still to be sent
            self._set_timer(self.loop.call_later(READ_SECONDS, self.transport.abort))

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer


class Server(uvicorn.Server):
    """uvicorn's server, which says where it listens and stops the queue when it stops."""

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self.service = service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        for listener in sockets or ():
            host, port = listener.getsockname()[:2]
            host = f"[{host}]" if ":" in host else host
            say(f"listening on http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, and wait for what is queued."""
        self.service.jobs.close()
        await super().shutdown(sockets)


def serve(
    recoverer: Recoverer,
    options: RecoverOptions,
    limits: Limits,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    first: Photo,
) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
      recoverer: the model.
      options: of all photos; max_people is that of the limits.
      limits: of requests.
      host: address to listen on.
      port: 0: any free one.
      hosts: further names in the Host header that are served.
      first: photo with which the programs are compiled.

    Returns:
      0 if every accepted request was answered; 1 if some were not, or the model failed.

    Raises:
      InputError: the address cannot be listened on.
    """
    listener = listen(host, port)
    server = make_server(recoverer, options, limits, listener, hosts)
    worker = server.service.worker

    def stop(*_: object) -> None:
        server.should_exit = True

    # uvicorn puts back these handlers when it has stopped, and raises its signal again: that must
    # not end the process before the last answers, and not with the signal as exit code.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    worker.start(first)
    server.run([listener])
    done = worker.stop(STOP_SECONDS)
    code = 0 if done and worker.failure is None else 1
    if not worker.ended or server.service.uploads.held:
        # A thread that compiles or decodes cannot be stopped, and Python would wait for it.
        timer = threading.Timer(STOP_SECONDS, os._exit, [code])
        timer.daemon = True
        timer.start()
    return code


def make_server(
    recoverer: Recoverer,
    options: RecoverOptions,
    limits: Limits,
    listener: socket.socket,
    hosts: tuple[str, ...] = (),
) -> Server:
    """A server on an open socket; its `service.worker` is to be started and stopped."""
    jobs, uploads = JobQueue(limits.queue), Uploads(limits)
    metrics = Metrics(lambda: len(jobs), lambda: uploads.held)
    worker = Worker(recoverer, options, jobs, metrics)
    service = Service(limits, uploads, jobs, worker, metrics)
    config = uvicorn.Config(
        make_app(service, allowed_hosts(listener.getsockname()[0], hosts)),
        loop="asyncio",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=4 * limits.queue + 64,
        timeout_keep_alive=HEAD_SECONDS,
        timeout_graceful_shutdown=int(limits.timeout) + STOP_SECONDS,
    )
    return Server(config, service)


def allowed_hosts(address: str, hosts: tuple[str, ...]) -> tuple[str, ...]:
    """The names in the Host header that are served.

    A page of another site can make a name of its own point to this machine (DNS rebinding). On a
    loopback address its requests are told apart by that name. On other addresses every name is
    served unless some are given.
    """
    if address == "::1" or address.startswith("127."):
        return (*LOOPBACK, address, *hosts)
    return hosts or ("*",)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
      InputError: the address does not exist, is in use, or needs permission.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        where = f"--host {host} --port {port}"
        problem = f"cannot be listened on ({error.strerror or error})"
        raise InputError(where, problem, "choose another address or port") from error
