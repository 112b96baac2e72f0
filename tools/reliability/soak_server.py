"""Keeps a server under load, and checks every answer: nothing lost, nothing swapped, no leak.

    python tools/reliability/soak_server.py --minutes 20 --clients 16 --out soak.json

The server is a process of its own (`genhmr serve`). The right answers are those of
`genhmr recover` for each photo alone, in other processes before it. Clients send good photos and
hostile bodies, as fast as they are answered. The exit code is 1 if an answer was lost or wrong, a
hostile body was not refused as it must be, or the server did not stop with code 0.
"""

import argparse
import collections
import dataclasses
import http.client
import io
import json
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from hostile_bodies import KINDS, MAX_BYTES, Body, good_photos

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.recover.people import People

ROOT = Path(__file__).parents[2]
GENHMR = (sys.executable, "-u", "-m", "genhmr_jax.cli.main")
TOLERANCE = 1e-4
"""Metres, of vertices and joints."""
TIMEOUT = 30
"""Seconds, the server's --timeout."""
SHARE_OF_GOOD = 0.65
SAMPLE_SECONDS = 2.0


@dataclasses.dataclass
class Counts:
    """What the clients saw. Its methods may be called in any thread."""

    good: list[float] = dataclasses.field(default_factory=list)
    statuses: dict[str, collections.Counter] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    problems: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    examples: list[str] = dataclasses.field(default_factory=list)
    worst: float = 0.0
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def note(self, kind: str, status: object, problem: str | None = None, more: str = "") -> None:
        """Count a request, and a problem with it."""
        with self.lock:
            self.statuses[kind][str(status)] += 1
            if problem:
                self.problems[problem] += 1
                self.examples.append(f"{kind}: {status} {problem} {more}"[:300])

    def correct(self, kind: str, seconds: float, difference: float) -> None:
        """Count a correct answer to a good photo."""
        with self.lock:
            self.statuses[kind]["200"] += 1
            self.good.append(seconds)
            self.worst = max(self.worst, difference)


class Server:
    """The server's process."""

    def __init__(self, folder: Path) -> None:
        flags = ("--port", "0", "--timeout", str(TIMEOUT), "--max-bytes", str(MAX_BYTES))
        self.errors = (folder / "stderr.txt").open("w+")
        command = [*GENHMR, "serve", *flags]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.errors, text=True, cwd=ROOT
        )
        line = self.process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        if address is None:
            self.errors.seek(0)
            raise SystemExit(f"the server does not start: {self.errors.read()}")
        self.port = int(address[1])
        while self.get("/healthz")[0] != 200:
            time.sleep(0.5)

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def metrics(self) -> tuple[float, float]:
        """Resident memory in MiB, and the number of requests."""
        text = self.get("/metrics")[1].decode()
        memory = re.search(r"^process_resident_memory_bytes (\S+)", text, re.MULTILINE)
        requests = re.findall(r"^genhmr_requests_total\{.*\} (\S+)", text, re.MULTILINE)
        return float(memory[1]) / 2**20, sum(map(float, requests))

    def stop(self) -> tuple[int, float, str]:
        """Exit code and seconds after SIGTERM, and what it wrote on stderr."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(TIMEOUT + 30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.errors.seek(0)
        return code, time.monotonic() - start, self.errors.read()


def references(photos: dict[str, Body], folder: Path) -> dict[str, People]:
    """What `genhmr recover` answers for each photo alone."""
    found = {}
    for name, body in photos.items():
        file = folder / f"{name}.{body.media_type.partition('/')[2]}"
        file.write_bytes(body.data)
        command = [*GENHMR, "recover", str(file), "--out", str(folder / name), "--no-overlay"]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        found[name] = People.load(folder / name / f"{name}.npz")
    return found


def distance(answer: bytes, format: str, people: People) -> float:
    """The largest difference of an answer from a result, metres; inf if they do not match."""
    if format == "json":
        joints = np.array([person["joints"] for person in json.loads(answer)["people"]])
        wanted = people.joints
    else:
        joints, wanted = People.load(io.BytesIO(answer)).vertices, people.vertices
    return float(np.abs(joints - wanted).max()) if joints.shape == wanted.shape else float("inf")


def send(port: int, body: Body, format: str) -> tuple[int, bytes, float]:
    """Post a body as its kind does; status, answer and Retry-After. Status 0: it went away."""
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT + 60) as connection:
        head = (
            f"POST /v1/recover?format={format} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Content-Type: {body.media_type}\r\nContent-Length: {body.declared}\r\n\r\n"
        )
        connection.sendall(head.encode())
        parts = max(1, body.parts)
        size = -(-len(body.data) // parts)
        for i in range(parts):
            connection.sendall(body.data[i * size : (i + 1) * size])
            time.sleep(body.pause)
        if body.leaves:
            return 0, b"", 0.0
        answer = http.client.HTTPResponse(connection, method="POST")
        answer.begin()
        return answer.status, answer.read(), float(answer.headers.get("Retry-After", 0))


def client(
    seed: int, end: float, port: int, photos: dict[str, Body], wanted: dict[str, People],
    counts: Counts,
) -> None:  # fmt: skip
    """One client: good photos and hostile bodies until the time is over."""
    rng = random.Random(seed)
    while time.monotonic() < end:
        if rng.random() < SHARE_OF_GOOD:
            name = rng.choice(list(photos))
            body, format = photos[name], rng.choice(("npz", "npz", "json", "glb", "html"))
        else:
            name = rng.choice(list(KINDS))
            body, format = KINDS[name](rng, photos), "npz"
        start = time.monotonic()
        try:
            status, answer, retry = send(port, body, format)
        except (OSError, http.client.HTTPException) as error:
            # The server may close the connection on a body that goes on after its refusal.
            expected = 0 in body.statuses
            counts.note(name, "closed", None if expected else "lost", repr(error))
            continue
        seconds = time.monotonic() - start
        if status == 429:
            counts.note(name, status)
            time.sleep(retry * rng.uniform(0.2, 1.0))
        elif status not in body.statuses:
            problem = "lost" if name in photos else "not refused as expected"
            counts.note(name, status, problem, answer[:200].decode(errors="replace"))
        elif status == 200 and body.photo and format in ("npz", "json"):
            check(name, body.photo, answer, format, wanted, seconds, counts)
        elif status == 200 and name in photos:
            counts.correct(name, seconds, 0.0)
        else:
            counts.note(name, status)


def check(
    name: str, photo: str, answer: bytes, format: str, wanted: dict[str, People], seconds: float,
    counts: Counts,
) -> None:  # fmt: skip
    """Compare an answer with the result of its photo, and with those of the others."""
    difference = distance(answer, format, wanted[photo])
    if difference <= TOLERANCE:
        counts.correct(name, seconds, difference)
        return
    others = [other for other in wanted if distance(answer, format, wanted[other]) <= TOLERANCE]
    counts.note(name, 200, "swapped" if others else "wrong", f"{difference} m, is {others}")


def slope(samples: list[tuple[float, float]]) -> float:
    """MiB per 1,000 requests after the first fifth, by least squares of (MiB, requests)."""
    memory, requests = np.array(samples[len(samples) // 5 :]).T
    if len(memory) < 3 or not np.ptp(requests):
        return float("nan")
    return float(1000 * np.polyfit(requests, memory, 1)[0])


def soak(minutes: float, clients: int, seed: int, say: Callable[[str], None]) -> dict:
    """Run the campaign, and return its figures."""
    with tempfile.TemporaryDirectory(prefix="genhmr-soak-") as temporary:
        folder = Path(temporary)
        photos = good_photos()
        wanted = references(photos, folder)
        say(f"reference answers: {', '.join(f'{n} {len(p)} people' for n, p in wanted.items())}")
        server, counts, samples = Server(folder), Counts(), []
        say(f"the server is ready on port {server.port}")
        end = time.monotonic() + 60 * minutes
        shared = (end, server.port, photos, wanted, counts)
        threads = [
            threading.Thread(target=client, args=(1000 * seed + i, *shared), daemon=True)
            for i in range(clients)
        ]
        for thread in threads:
            thread.start()
        while time.monotonic() < end and server.process.poll() is None:
            samples.append(server.metrics())
            time.sleep(SAMPLE_SECONDS)
        # The signal comes while the last requests are under way: they must be answered too.
        code, seconds, errors = server.stop()
        for thread in threads:
            thread.join(TIMEOUT + 90)
    return figures(counts, samples, minutes, clients) | {
        "unanswered_clients": sum(thread.is_alive() for thread in threads),
        "exit_code": code,
        "stop_seconds": round(seconds, 2),
        "stderr": errors[-2000:],
    }


def figures(
    counts: Counts, samples: list[tuple[float, float]], minutes: float, clients: int
) -> dict:
    """What is printed and written."""
    total = collections.Counter()
    for found in counts.statuses.values():
        total += found
    latency = np.percentile(counts.good, [50, 95, 99]) if counts.good else [float("nan")] * 3
    problems = ("lost", "swapped", "wrong", "not refused as expected")
    return {
        "minutes": minutes,
        "clients": clients,
        "requests": sum(total.values()),
        "good_answers": len(counts.good),
        "good_per_second": round(len(counts.good) / (60 * minutes), 2),
        "latency_s": dict(zip(("p50", "p95", "p99"), np.round(latency, 3).tolist(), strict=True)),
        "refused_429": total["429"],
        "problems": {name: counts.problems[name] for name in problems},
        "examples": counts.examples[:20],
        "largest_difference_m": counts.worst,
        "memory_mib": {"first": round(samples[0][0]), "last": round(samples[-1][0]),
                       "most": round(max(memory for memory, _ in samples))},
        "memory_slope_mib_per_1000": round(slope(samples), 2),
        "samples": [[round(memory, 1), int(requests)] for memory, requests in samples],
        "statuses": {kind: dict(found) for kind, found in sorted(counts.statuses.items())},
    }  # fmt: skip


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=20, help="duration of the load")
    parser.add_argument("--clients", type=int, default=16, help="clients at the same time")
    parser.add_argument("--seed", type=int, default=0, help="of the clients' choices")
    parser.add_argument("--out", type=Path, default=Path("soak_server.json"), help="JSON file")
    args = parser.parse_args()
    found = soak(args.minutes, args.clients, args.seed, print)
    with atomic_path(args.out) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n")
    for name, value in found.items():
        if name not in ("statuses", "samples"):
            print(f"{name:28} {value}")
    width = max(map(len, found["statuses"]))
    for kind, statuses in found["statuses"].items():
        print(f"  {kind:{width}}  {', '.join(f'{s}: {n}' for s, n in sorted(statuses.items()))}")
    failed = any(found["problems"].values()) or found["exit_code"] or found["unanswered_clients"]
    print("FAILED" if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
