"""The front page in Chromium: a photo is chosen and sent, and its people are shown."""

import json

import pytest

from support import browser
from support.servers import HeldRecoverer, photo, running

pytestmark = pytest.mark.skipif(browser.find() is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def server():
    with running(HeldRecoverer()) as opened:
        yield opened


@pytest.fixture(scope="module")
def chromium():
    # The frame of the result in the process of the page: one session sees the errors of both.
    with browser.Browser(flags=("--disable-features=IsolateSandboxedIframes",)) as opened:
        yield opened


def show(chromium, server, width=1000, height=640, **media):
    chromium.visit(f"http://127.0.0.1:{server.port}/", width, height, **media)


def choose(chromium, path):
    root = chromium.call("DOM.getDocument")["root"]["nodeId"]
    node = chromium.call("DOM.querySelector", nodeId=root, selector="#photo")["nodeId"]
    chromium.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])


def in_frame(chromium, expression: str):
    """The value of an expression in the frame of the result, in a world without its scripts."""
    tree = chromium.call("Page.getFrameTree")["frameTree"]
    frame = tree["childFrames"][0]["frame"]["id"]
    world = chromium.call("Page.createIsolatedWorld", frameId=frame)["executionContextId"]
    how = {"expression": expression, "contextId": world, "returnByValue": True}
    return chromium.call("Runtime.evaluate", **how)["result"].get("value")


def status(chromium) -> str:
    return chromium.evaluate("document.getElementById('status').textContent")


def test_a_photo_is_sent_and_its_people_are_shown(chromium, server, tmp_path):
    show(chromium, server)
    (tmp_path / "photo.png").write_bytes(photo(90, (320, 240)))
    choose(chromium, tmp_path / "photo.png")
    chromium.click("#send")
    chromium.wait("!document.getElementById('result').hidden")
    assert status(chromium) == "Done: the result is below."
    summary = "document.getElementById('summary').textContent"
    for _ in range(200):
        if in_frame(chromium, f"document.readyState === 'complete' && {summary}"):
            break
    assert in_frame(chromium, summary).startswith("2 people")
    assert in_frame(chromium, "document.getElementById('no-webgl').hidden") is True
    files = "[...document.querySelectorAll('#downloads button')].map(b => b.textContent).join()"
    assert "people.npz" in in_frame(chromium, files) and "people.glb" in in_frame(chromium, files)
    # Blue of the photo is at the top of the frame; a body is drawn in another colour below.
    assert in_frame(chromium, "document.getElementById('photo-bodies').width") > 100
    assert chromium.errors == []
    assert [url.partition("/v1/")[2] for url in chromium.requests] == ["recover?format=html"]


def test_an_error_is_told_in_words(chromium, server, tmp_path):
    show(chromium, server)
    (tmp_path / "photo.png").write_bytes(b"no photo")
    choose(chromium, tmp_path / "photo.png")
    chromium.click("#send")
    chromium.wait("document.getElementById('status').className === 'wrong'")
    wanted = "the photo is not an image that can be read; convert it to JPEG or PNG"
    assert status(chromium) == wanted
    assert chromium.evaluate("document.getElementById('send').disabled") is False


def test_the_keyboard_reaches_everything_and_it_fits_a_phone(chromium, server):
    for scheme in ("light", "dark"):
        show(chromium, server, 390, 844, color_scheme=scheme)
        assert chromium.evaluate("document.documentElement.scrollWidth") == 390
        colours = "(e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor])"
        ink, paper = chromium.evaluate(f"{colours}(document.body)")
        assert (int(paper[4:].split(",")[0]) > 128) == (scheme == "light") and ink != paper
    reached = []
    for _ in range(2):
        chromium.press("Tab")
        reached.append(chromium.evaluate("document.activeElement.id"))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert chromium.evaluate(outline) == "solid"
    assert reached == ["photo", "send"]
    assert chromium.errors == [], json.dumps(chromium.errors)
