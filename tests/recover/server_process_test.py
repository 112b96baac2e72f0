"""`genhmr serve` as a process of its own: its start, its signals, its exit code."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest

from genhmr_jax.recover.people import People
from support import servers
from support.paths import ROOT
from support.servers import JPEG, photo


@pytest.fixture
def start():
    """A function that starts a server and returns (process, port)."""
    started = []

    def begin(*flags: str) -> tuple[subprocess.Popen, int]:
        command = [sys.executable, "-u", servers.__file__, "--port", "0", *flags]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | {"text": True}
        process = subprocess.Popen(command, env=environment, **pipes)
        started.append(process)
        line = process.stdout.readline()
        address = re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line)
        assert address, line + process.stderr.read()
        servers.wait_for(lambda: "ready" in get(int(address[1]), "/healthz"))
        return process, int(address[1])

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def post(port: int, body: bytes) -> tuple[int, bytes]:
    """Status and answer to a photo."""
    return request(port, "POST", "/v1/recover?format=npz", body)


def get(port: int, path: str) -> str:
    return request(port, "GET", path, None)[1].decode()


def request(port: int, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, JPEG)
    answer = connection.getresponse()
    found = answer.status, answer.read()
    connection.close()
    return found


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    except ConnectionRefusedError:
        return False


def held(process: subprocess.Popen, port: int, count: int) -> None:
    """Wait until the server has `count` photos that it cannot answer."""

    def photos() -> float:
        values = dict(line.rsplit(" ", 1) for line in get(port, "/metrics").splitlines())
        return float(values["genhmr_queue_photos"]) + float(values["genhmr_group_photos_sum"])

    servers.wait_for(lambda: photos() == count)


def tell(process: subprocess.Popen, word: str) -> None:
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_ends_it_after_the_last_answer(start, number):
    process, port = start()
    tell(process, "hold")
    with socket.create_connection(("127.0.0.1", port)) as idle, ThreadPoolExecutor(12) as pool:
        idle.sendall(b"POST /v1/rec")  # it is not waited for
        asked = [pool.submit(post, port, photo(red)) for red in range(10, 22)]
        held(process, port, 12)
        process.send_signal(number)
        servers.wait_for(lambda: not listens(port))
        tell(process, "go")
        answers = [one.result() for one in asked]
    assert [status for status, _ in answers] == [200] * 12
    found = [People.load(io.BytesIO(body)).betas[0, 0] for _, body in answers]
    assert found == list(range(10, 22))
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0 and errors == "" and output == ""


@pytest.mark.slow
def test_photos_that_outlast_their_time_do_not_keep_it(start):
    process, port = start("--timeout", "2")
    tell(process, "hold")
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(post, port, photo(red)) for red in (30, 31)]
        held(process, port, 2)
        process.terminate()
        assert {one.result()[0] for one in asked} <= {503, 504}
        assert "stopped before the model was done" in process.communicate(timeout=30)[1]
    assert process.returncode == 1
