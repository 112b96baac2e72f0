"""The server over real HTTP: answers, groups, the queue, deadlines, clients that go away."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import trimesh
from prometheus_client.parser import text_string_to_metric_families

from genhmr_jax.recover.options import DEFAULTS
from genhmr_jax.recover.people import People
from genhmr_jax.recover.server import answers, serving, worker
from genhmr_jax.recover.server.settings import Limits
from support.servers import JPEG, HeldRecoverer, expected, photo, running, wait_for


@pytest.fixture(scope="module")
def model():
    return HeldRecoverer()


@pytest.fixture(scope="module")
def server(model):
    with running(model) as opened:
        yield opened


def load(body: bytes) -> People:
    return People.load(io.BytesIO(body))


def same(people: People, wanted: People) -> bool:
    pairs = ((people.arrays()[name], value) for name, value in wanted.arrays().items())
    return all(np.array_equal(one, other) for one, other in pairs)


def sample(server, name: str, **labels: str) -> float:
    """A value of /metrics."""
    families = text_string_to_metric_families(server.get("/metrics").body.decode())
    found = [s for f in families for s in f.samples if s.name == name and s.labels == labels]
    return found[0].value if found else 0.0


def test_every_format_has_the_same_numbers(server):
    replies = {name: server.post(photo(7), f"?format={name}") for name in answers.FORMATS}
    assert {name: reply.headers["content-type"] for name, reply in replies.items()} == (
        answers.FORMATS
    )
    wanted = expected(7)
    assert same(load(replies["npz"].body), wanted)
    found = replies["json"].json
    assert found["focal_from"] == "guess" and found["focal_length"] == wanted.focal_length
    assert found["joint_names"] == wanted.joint_names.tolist() and found["warnings"] == []
    for i, person in enumerate(found["people"]):
        assert np.array_equal(np.float32(person["box"]), wanted.boxes[i])
        for name in answers.OF_PERSON:
            assert np.array_equal(np.float32(person[name]), wanted.arrays()[name][i]), name
    scene = trimesh.load(io.BytesIO(replies["glb"].body), file_type="glb")
    assert sorted(scene.graph.nodes_geometry) == ["person_0", "person_1"]
    for i in range(2):
        corners = scene.geometry[f"person_{i}"].vertices
        np.testing.assert_allclose(corners, wanted.vertices[i] * [1, -1, -1], atol=1e-6)
    assert "Content-Security-Policy" in replies["html"].body.decode()
    assert 'filename="people.npz"' in replies["npz"].headers["content-disposition"]


def test_a_number_that_is_not_known_is_null():
    people = expected(3)
    people.joint_confidence[0, 5] = np.nan
    how = ("json", "guess", None, None)
    body = answers.answer(people, *how).body
    assert b"NaN" not in body and json.loads(body)["people"][0]["joint_confidence"][5] is None


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "json"),
        ("*/*", "json"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "html"),
        ("application/x-npz", "npz"),
        ("model/*;q=0.5, application/json;q=0.1", "glb"),
        ("application/json;q=0, text/*;q=0.2", "html"),
        ("image/png", None),
        ("text/html;q=much", None),
    ],
)
def test_the_accept_header_chooses(accept, kind):
    assert answers.format_of(accept) == kind


def test_accept_over_http(server):
    reply = server.post(photo(7), headers={**JPEG, "Accept": "application/x-npz"})
    assert reply.status == 200 and same(load(reply.body), expected(7))
    assert server.post(photo(7), headers={**JPEG, "Accept": "image/png"}).status == 406


def test_a_request_that_arrives_with_the_one_before_it_has_its_time(server, model, monkeypatch):
    """Its connection is not one on which no request is coming."""
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.3)
    body = photo(7)
    first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    second = f"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    second += "Content-Type: image/png\r\nConnection: close\r\n\r\n"
    model.go.clear()
    try:
        with server.raw(first + second.encode() + body) as client:
            wait_for(lambda: model.at_work)
            time.sleep(1)
            model.go.set()
            answers = b""
            while part := client.recv(65536):
                answers += part
    finally:
        model.go.set()
    assert answers.count(b"HTTP/1.1 200") == 2


def test_a_client_that_leaves_while_its_answer_is_made_is_no_error(model, monkeypatch, capsys):
    made, go = threading.Event(), threading.Event()

    def slow(*how):
        made.set()
        assert go.wait(30)
        return answers.answer(*how)

    with running(model) as opened:
        monkeypatch.setattr(worker, "answer", slow)
        body = photo(7)
        head = f"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        with opened.raw(head.encode() + b"Content-Type: image/png\r\n\r\n" + body):
            assert made.wait(30)
        gone = {"status": "499", "format": "json"}
        wait_for(lambda: sample(opened, "genhmr_requests_total", **gone))
        go.set()
        monkeypatch.undo()
        assert opened.post(photo(8)).status == 200
    assert "internal error" not in capsys.readouterr().err


def test_a_camera_is_that_of_one_photo(server):
    with ThreadPoolExecutor(3) as pool:
        queries = ("", "&focal=100", "&fov=90")
        replies = list(pool.map(lambda q: server.post(photo(9), f"?format=npz{q}"), queries))
    assert [float(load(reply.body).focal_length) for reply in replies] == [80, 100, 32]


def test_many_clients_get_their_own_answers_and_are_solved_together(server, model):
    reds = list(range(10, 50))
    model.groups.clear()
    before = sample(server, "genhmr_people_total")
    limits = server.service.limits

    def ask(red):
        while (reply := server.post(photo(red), "?format=npz")).status == 429:
            assert reply.headers["retry-after"] == "1"
            time.sleep(0.05)
        return reply

    model.go.clear()
    with ThreadPoolExecutor(len(reds)) as pool:
        replies = pool.map(ask, reds)
        wait_for(lambda: len(server.service.jobs) == limits.queue)
        model.go.set()
        for red, reply in zip(reds, replies, strict=True):
            assert reply.status == 200 and same(load(reply.body), expected(red))
    assert sorted(sum(model.groups, [])) == reds
    assert max(map(len, model.groups)) == 8
    assert sample(server, "genhmr_people_total") - before == 2 * len(reds)


def test_one_failure_in_a_group_is_of_its_photo_alone(server, model, capsys):
    model.failures |= {61: RuntimeError("/secret/path"), 62: MemoryError()}
    model.go.clear()
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(server.post, photo(60), "?format=npz")
        wait_for(lambda: model.at_work)
        others = [pool.submit(server.post, photo(red), "?format=npz") for red in (61, 62, 63)]
        wait_for(lambda: len(server.service.jobs) == 3)
        model.go.set()
    assert [one.result().status for one in (first, *others)] == [200, 500, 503, 200]
    assert same(load(others[2].result().body), expected(63))
    assert b"secret" not in others[0].result().body and "/secret/path" in capsys.readouterr().err
    assert others[1].result().error["problem"] == "does not fit into memory"
    model.failures.clear()


def test_nobody_is_found(server):
    reply = server.post(photo(1))
    assert reply.status == 422 and reply.error["problem"] == "nobody was found"


def test_a_full_queue_refuses_at_once_and_a_deadline_frees_its_place():
    model = HeldRecoverer()
    with running(model, Limits(queue=2, timeout=2.0)) as server, ThreadPoolExecutor(3) as pool:
        model.go.clear()
        first = pool.submit(server.post, photo(20))
        wait_for(lambda: model.at_work)
        waiting = [pool.submit(server.post, photo(red)) for red in (21, 22)]
        wait_for(lambda: len(server.service.jobs) == 2)
        start = time.monotonic()
        reply = server.post(photo(23))
        assert reply.status == 429 and reply.headers["retry-after"] == "1"
        assert time.monotonic() - start < 1.5 and reply.error["where"] == "the server"
        assert first.result().status == 504  # the model has it
        assert [one.result().status for one in waiting] == [503, 503]
        assert len(server.service.jobs) == 0 and first.result().error["where"] == "the photo"
        model.go.set()
        assert server.post(photo(24)).status == 200
        assert model.prepared == [20, 24]
        for status, count in ((200, 1), (429, 1), (503, 2), (504, 1)):
            labels = {"status": str(status), "format": "json"}
            assert sample(server, "genhmr_requests_total", **labels) == count
        assert sample(server, "genhmr_request_seconds_count") == 1


def test_a_client_that_goes_away_frees_its_place(server, model):
    def begin(red, whole=True):
        body = photo(red)
        head = f"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
        return server.raw(
            head.encode() + b"Content-Type: image/png\r\n\r\n" + body[: None if whole else 20]
        )

    model.go.clear()
    model.prepared.clear()
    with begin(30):
        wait_for(lambda: model.at_work)
        with begin(31), begin(32):
            wait_for(lambda: len(server.service.jobs) == 2)
        wait_for(lambda: len(server.service.jobs) == 0)
    begin(33, whole=False).close()
    gone = lambda: sample(server, "genhmr_requests_total", status="499", format="json")
    wait_for(lambda: gone() == 4)
    model.go.set()
    assert server.post(photo(34)).status == 200 and model.prepared == [30, 34]
    assert server.service.uploads.held == 0


def test_the_stop_answers_what_is_queued():
    model, replies = HeldRecoverer(), []
    with running(model) as server:
        model.go.clear()
        ask = lambda red: replies.append(server.post(photo(red)).status)
        clients = [threading.Thread(target=ask, args=(red,)) for red in range(40, 50)]
        for client in clients:
            client.start()
        wait_for(lambda: len(server.service.jobs) + model.at_work == 10)
        kept = server.connect()
        kept.request("GET", "/healthz")
        assert kept.getresponse().read() == b'{"status":"ready"}'
        server.server.should_exit = True
        wait_for(lambda: server.service.jobs.closed)
        with pytest.raises(OSError):
            wait_for(lambda: server.raw(b"").close())  # until nothing listens any more
        model.go.set()
    for client in clients:
        client.join()
    assert replies == [200] * 10


def test_a_model_that_fails_at_its_first_photo_is_reported():
    model = HeldRecoverer()
    listener = serving.listen("127.0.0.1", 0)
    server = serving.make_server(model, DEFAULTS, Limits(), listener)
    service = server.service
    assert service.state() == "starting"
    service.worker.start(None)  # no photo at all
    wait_for(lambda: service.worker.failure is not None)
    assert service.state() == "failed"
    listener.close()


def test_idle_connections_are_closed(server, monkeypatch):
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.2)
    with server.raw(b"") as silent, server.raw(b"GET / HT") as slow:
        assert silent.recv(10) == b"" and slow.recv(10) == b""


def test_a_refused_body_that_never_ends(monkeypatch):
    """It has as much time as one that is accepted, and no more."""
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.2)
    head = b"POST /v1/recover HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
    with running(HeldRecoverer(), Limits(timeout=0.5)) as server:
        with server.raw(head + b"Content-Type: text/plain\r\n\r\n") as endless:
            with pytest.raises(OSError):
                wait_for(lambda: endless.sendall(bytes(1000)))
