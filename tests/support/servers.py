"""A server on a free port of this machine, around a made-up model that a test can hold."""

import contextlib
import dataclasses
import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection

import numpy as np
from PIL import Image

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.images import Photo
from genhmr_jax.recover.people import People
from genhmr_jax.recover.server import serving
from genhmr_jax.recover.server.settings import Limits
from support.fakes import fake_people

JPEG = {"Content-Type": "image/jpeg"}


def photo(red: int, size=(64, 48), kind="PNG") -> bytes:
    """A file of one colour, by which the made-up model recognises it."""
    stream = io.BytesIO()
    Image.new("RGB", size, (red, 120, 150)).save(stream, kind)
    return stream.getvalue()


def image(red: int) -> np.ndarray:
    return np.full((48, 64, 3), (red, 120, 150), np.uint8)


class Prepared:
    """A prepared photo, which is its own people too."""

    def __init__(self, red: int, focal: float) -> None:
        self.red, self.focal, self.people = red, focal, self

    def __len__(self) -> int:
        return 0 if self.red == 1 else 2


class HeldRecoverer:
    """Answers two people whose betas are the red of the photo; nobody in a photo of red 1.

    Attributes:
      go: it solves nothing while this is cleared.
      at_work: photos that are being solved.
      prepared: red of each photo that was prepared, in order.
      groups: reds of the photos that were solved together.
      failures: what solving raises for a red, alone or together with others.
    """

    def __init__(self) -> None:
        self.body = load_body("lite")
        self.go, self.at_work = threading.Event(), 0
        self.prepared, self.groups, self.failures = [], [], {}
        self.go.set()

    def prepare(self, pixels, *, options) -> Prepared:
        height, width = pixels.shape[:2]
        self.prepared.append(int(pixels[0, 0, 0]))
        return Prepared(int(pixels[0, 0, 0]), options.camera(width, height).focal)

    def recover_prepared(self, photos, options=None) -> list[People]:
        self.at_work = len(photos)
        assert self.go.wait(30)
        self.at_work = 0
        for one in photos:
            if one.red in self.failures:
                raise self.failures[one.red]
        self.groups.append([one.red for one in photos])
        return [expected(one.red, one.focal) for one in photos]


def expected(red: int, focal: float = 80.0) -> People:
    """What HeldRecoverer answers; the default focal length is the diagonal of `photo`."""
    return fake_people(
        2, betas=np.full((2, 10), red), focal_length=focal, image_size=np.array([64, 48])
    )


@dataclasses.dataclass
class Running:
    """A server that runs."""

    server: serving.Server
    port: int

    @property
    def service(self):
        return self.server.service

    def connect(self) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=300)

    def raw(self, data: bytes) -> socket.socket:
        """A connection on which `data` was sent."""
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        opened.sendall(data)
        return opened

    def post(self, body, query="", headers=JPEG) -> "Reply":
        return self.send("POST", f"/v1/recover{query}", body, headers)

    def get(self, path: str, headers: dict[str, str] | None = None) -> "Reply":
        return self.send("GET", path, None, headers or {})

    def send(self, method, path, body, headers) -> "Reply":
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            kept = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, kept, answer.read())
        finally:
            connection.close()


@dataclasses.dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, str]:
        return self.json["error"]


@contextlib.contextmanager
def running(recoverer, limits=None, hosts=(), options=None) -> Iterator[Running]:
    """A server in threads of this process, after its first photo."""
    from genhmr_jax.recover.options import DEFAULTS

    listener = serving.listen("127.0.0.1", 0)
    how = (options or DEFAULTS, limits or Limits(timeout=20), listener, hosts)
    server = serving.make_server(recoverer, *how)
    worker = server.service.worker
    worker.start(Photo(image(0), None))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        assert worker.ready.wait(300)
        wait_for(lambda: server.started)
        if isinstance(recoverer, HeldRecoverer):
            recoverer.prepared.clear()
            recoverer.groups.clear()
        yield Running(server, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert worker.stop(30) and not thread.is_alive()


def wait_for(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.005)


def main() -> int:
    """`genhmr serve` with the made-up model, in a process of its own: python servers.py FLAGS.

    The line "hold" on stdin makes the model wait, and "go" makes it go on.
    """
    from genhmr_jax.cli import main as command_line
    from genhmr_jax.recover import command
    from genhmr_jax.recover.options import DEFAULTS

    model = HeldRecoverer()

    def obey() -> None:
        for line in sys.stdin:
            model.go.set() if line == "go\n" else model.go.clear()

    threading.Thread(target=obey, daemon=True).start()
    command.load = lambda args: (model, DEFAULTS)
    return command_line.main(["serve", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
