"""What the server refuses, over real HTTP: nothing of it reaches the model, and nothing is kept."""

import io
import json
import struct
import threading
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.recover.server import limits as module
from genhmr_jax.recover.server.serving import allowed_hosts
from genhmr_jax.recover.server.settings import Limits
from support.servers import JPEG, HeldRecoverer, photo, running, wait_for

LIMITS = Limits(max_bytes=20_000, max_pixels=10_000, timeout=10)


@pytest.fixture(scope="module")
def model():
    return HeldRecoverer()


@pytest.fixture(scope="module")
def server(model):
    with running(model, LIMITS) as opened:
        yield opened


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A PNG file of grey pixels, with any size in its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checked = kind + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def noise(kind: str, **how) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(stream, kind, **how)
    return stream.getvalue()


SCANS = noise("JPEG", progressive=True, quality=5)
SCANS = SCANS[:-2] + 70 * SCANS[SCANS.rindex(b"\xff\xda") : -2] + SCANS[-2:]
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n"
REFUSED = {
    "empty": (b"", 400, "is empty"),
    "text": (b"a photo, honestly", 415, "is not an image that can be read"),
    "another format": (noise("TIFF")[:15_000], 415, "is not an image that can be read"),
    "starts a program": (EPS, 415, "is not an image that can be read"),
    "truncated JPEG": (noise("JPEG")[:1500], 400, "is damaged or truncated"),
    "truncated PNG": (noise("PNG")[:9000], 400, "is damaged or truncated"),
    "too small": (png(9, 99, bytes(99 * 10)), 400, "is only 9 x 99 px"),
    "too many pixels": (png(101, 100, bytes(101 * 101)), 413, "is 101 x 100 px"),
    "a side too long": (png(16_001, 16), 413, "is 16001 x 16 px"),
    "bomb": (png(60_000, 60_000, bytes(10**7)), 413, "is larger than 0.01 megapixels"),
    "bomb within the size": (png(100, 100, bytes(10**7)), 200, ""),
    "many scans": (SCANS, 400, "has more than 64 scans"),
    "too many bytes": (bytes(20_001), 413, "has more than 20 000 bytes"),
    "far too many bytes": (bytes(3_000_000), 413, "has more than 20 000 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_body_is_refused(server, model, name):
    body, status, problem = REFUSED[name]
    model.prepared.clear()
    reply = server.post(body)
    assert reply.status == status, reply.body
    if status != 200:
        assert model.prepared == [] and set(reply.error) == {"where", "problem", "remedy"}
        assert problem in reply.error["problem"] and reply.error["where"] == "the photo"
        assert "/" not in reply.error["problem"] and "_io" not in reply.error["problem"]
        assert reply.headers["content-type"] == "application/json"
    wait_for(lambda: server.service.uploads.held == 0)
    assert server.post(photo(5)).status == 200


def test_a_body_of_unknown_length_is_counted(server):
    parts = (bytes(1000) for _ in range(10_000))
    assert server.post(parts).status == 413  # chunked, ended by the server
    assert server.post(iter([photo(5)])).status == 200


@pytest.mark.parametrize("kind", [None, "", "text/plain", "multipart/form-data", "image/tiff"])
def test_only_types_of_photos_are_read(server, kind):
    reply = server.post(photo(5), headers={} if kind is None else {"Content-Type": kind})
    assert reply.status == 415 and reply.error["where"] == "Content-Type"
    assert server.post(photo(5), headers={"Content-Type": "Image/PNG; x=1"}).status == 200


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("?format=pkl", "format"),
        ("?fov=180", "fov"),
        ("?fov=nan", "fov"),
        ("?focal=-1", "focal"),
        ("?fov=60&focal=100", "focal"),
        ("?path=/etc/passwd", "path"),
        ("?boxes=boxes.json", "boxes"),
    ],
)
def test_parameters_are_checked(server, query, where):
    reply = server.post(photo(5), query)
    assert reply.status == 400 and reply.error["where"] == where


def test_other_routes_and_methods(server):
    assert server.get("/../../etc/passwd").status == 404
    assert server.get("/docs").status == 404  # its scripts would come from another server
    assert server.get("/v1/recover").status == 405
    assert json.loads(server.get("/openapi.json").body)["paths"].keys() >= {"/v1/recover"}
    assert server.send("OPTIONS", "/v1/recover", None, {"Origin": "http://evil.org"}).status == 405


def test_headers_are_safe_and_allow_no_other_site(server):
    routes = ("/", "/healthz", "/metrics", "/nowhere")
    replies = [server.get(route) for route in routes]
    replies += [server.post(photo(5), f"?format={kind}") for kind in ("json", "npz", "glb", "html")]
    replies += [server.post(b""), server.get("/healthz", {"Origin": "http://evil.org"})]
    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert not any(name.startswith("access-control") for name in reply.headers)
        assert "server" not in reply.headers and "set-cookie" not in reply.headers


def test_names_of_other_hosts_are_refused(server):
    own = f"127.0.0.1:{server.port}"
    assert server.get("/healthz", {"Host": own}).status == 200
    assert server.get("/healthz", {"Host": "localhost"}).status == 200
    assert server.get("/healthz", {"Host": "[::1]:80"}).status == 200
    for host in ("evil.org", "localhost.evil.org", "127.0.0.1.evil.org:80", ""):
        assert server.get("/healthz", {"Host": host}).status == 400
    assert allowed_hosts("0.0.0.0", ()) == ("*",)
    assert allowed_hosts("0.0.0.0", ("pose.org",)) == ("pose.org",)
    assert "pose.org" in allowed_hosts("127.0.0.1", ("pose.org",))


def test_a_slow_upload_ends_at_the_deadline():
    with running(HeldRecoverer(), Limits(timeout=0.5)) as server:
        head = b"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
        start = time.monotonic()
        with server.raw(head + b"Content-Type: image/png\r\n\r\nabc") as slow:
            assert slow.recv(1000).startswith(b"HTTP/1.1 408")
        assert 0.4 < time.monotonic() - start < 10
        assert server.service.uploads.held == 0


@pytest.mark.parametrize(
    ("path", "kind", "status"),
    [
        ("/v1/recover", "text/plain", 415),
        ("/v1/recover?format=gif", "image/png", 400),
        ("/v1/photos", "image/png", 404),
    ],
)
def test_a_slow_upload_gets_its_refusal(server, path, kind, status):
    """Closed while the client is still sending, the connection would lose the answer."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    head += f"Content-Length: 2000\r\nContent-Type: {kind}\r\n\r\n"
    with server.raw(head.encode()) as slow:
        for _ in range(10):
            slow.sendall(bytes(200))
            time.sleep(0.25)
        assert slow.recv(1000).startswith(f"HTTP/1.1 {status}".encode())


def test_a_refusal_in_an_upload_that_has_consent_is_seen(server):
    """The client sends all before it looks for the answer, which has been decided long before."""
    head = b"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
    head += b"Content-Type: image/png\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
    with server.raw(head) as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 100")
        for _ in range(7):
            client.sendall(b"1388\r\n" + bytes(5000) + b"\r\n")
            time.sleep(0.1)
        client.sendall(b"0\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_request_without_consent_is_refused_at_once(server):
    head = b"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
    start = time.monotonic()
    with server.raw(head + b"Content-Type: text/plain\r\nExpect: 100-continue\r\n\r\n") as client:
        assert client.recv(1000).startswith(b"HTTP/1.1 415")
    assert time.monotonic() - start < 1.5


def test_a_refused_body_that_does_not_come_is_not_waited_for(server):
    """Not for as long as an upload may take, which is 10 s."""
    head = b"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n"
    start = time.monotonic()
    with server.raw(head + b"Content-Type: image/png\r\n\r\n") as silent:
        assert silent.recv(1000).startswith(b"HTTP/1.1 413")
    assert time.monotonic() - start < 8


def test_all_uploads_together_are_limited(server):
    head = b"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20000\r\n"
    head += b"Content-Type: image/png\r\n\r\n"
    opened = [server.raw(head + bytes(19_000)) for _ in range(4)]
    wait_for(lambda: server.service.uploads.held == 76_000)
    reply = server.post(bytes(9_000))
    assert reply.status == 429 and "retry-after" in reply.headers
    for one in opened:
        one.close()
    wait_for(lambda: server.service.uploads.held == 0)
    assert server.post(photo(5)).status == 200


def test_a_slow_decoder_ends_at_the_deadline(monkeypatch):
    go = threading.Event()

    def slow(body, limits):
        go.wait(30)
        raise AssertionError("nobody waits for it")

    with running(HeldRecoverer(), Limits(timeout=0.3)) as server:
        monkeypatch.setattr(module, "decode", slow)
        assert server.post(photo(5), headers=JPEG).status == 503
        assert server.service.uploads.held == len(photo(5))  # a thread has it still
        go.set()
        wait_for(lambda: server.service.uploads.held == 0)
