"""What Chromium shows of a viewer page."""

import dataclasses
import io
import time

import jax
import numpy as np
import pytest
import smpl_jax
from PIL import Image

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.motion import Motion
from genhmr_jax.render.overlay import shade
from genhmr_jax.render.rest import Rest
from genhmr_jax.render.viewer.page import write_page
from genhmr_jax.render.viewer.scene import Scene
from support import browser
from support.viewer_scenes import CENTRE, COLOUR, FOCAL, SIZE, clip_scene, photo_scene, rest_body

pytestmark = pytest.mark.skipif(browser.find() is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def body() -> Rest:
    return rest_body("lite")


@pytest.fixture(scope="module")
def photo(body) -> Scene:
    return photo_scene(body)


@pytest.fixture(scope="module")
def clip(body) -> Scene:
    return clip_scene(body)


def project(points: np.ndarray, size: list[int]) -> np.ndarray:
    """Points in camera axes as px of a picture that is drawn at another size."""
    pixels = FOCAL * points[..., :2] / points[..., 2:] + CENTRE
    return pixels * (np.array(size) / SIZE)


@pytest.fixture(scope="module")
def chromium():
    with browser.Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def files(photo, clip, tmp_path_factory):
    folder = tmp_path_factory.mktemp("viewer")
    for name, scene in (("photo", photo), ("clip", clip)):
        write_page(folder / f"{name}.html", scene)
    return folder


def show(chromium, path, width=1000, height=640, **media):
    chromium.open(path, width, height, reduced_motion="reduce", **media)
    chromium.wait("window.genhmrState && genhmrState().ready")


def state(chromium) -> dict:
    return chromium.evaluate("genhmrState()")


def set_slider(chromium, name: str, value: int) -> None:
    chromium.evaluate(
        f"(() => {{ const slider = document.getElementById('{name}'); slider.value = {value};"
        "slider.dispatchEvent(new Event('input')); })()"
    )


def settle(chromium) -> None:
    """Wait until what was asked for is drawn."""
    frames = "requestAnimationFrame(() => requestAnimationFrame(done))"
    chromium.evaluate(f"new Promise((done) => setTimeout(() => {frames}, 20))")


FORWARD = jax.jit(smpl_jax.forward)


def posed(first: Motion, second: Motion, frame: int = 0) -> smpl_jax.SmplOutput:
    """Two bodies in camera axes, by smpl_jax."""
    motions = (first, second)
    betas = np.stack([motion.betas for motion in motions])
    poses = np.stack([motion.poses[frame] for motion in motions]).astype(np.float32)
    places = np.stack([motion.translation[frame] for motion in motions])
    return FORWARD(load_body("lite"), betas, poses, places)


def distances(shown: dict, bodies: smpl_jax.SmplOutput) -> list[float]:
    """The largest distance of each person's joints from where they should be, px."""
    expected = project(np.asarray(bodies.joints), shown["size"])
    found = np.array([person["joints"] for person in shown["people"]])
    return np.linalg.norm(found - expected, axis=-1).max(-1).tolist()


def picture_shown(chromium) -> np.ndarray:
    """The picture with the bodies over it, by a screenshot."""
    set_slider(chromium, "opacity", 100)
    chromium.evaluate("scrollTo(0, 0)")
    settle(chromium)
    box = chromium.evaluate(
        "document.getElementById('photo-holder').getBoundingClientRect().toJSON()"
    )
    left, top = round(box["x"]), round(box["y"])
    area = (left, top, left + round(box["width"]), top + round(box["height"]))
    shot = Image.open(io.BytesIO(chromium.screenshot())).convert("RGB").crop(area)
    return np.asarray(shot).astype(int)


def bodies_drawn(chromium) -> np.ndarray:
    """Where bodies cover the picture."""
    return np.abs(picture_shown(chromium) - COLOUR).max(-1) > 90


def test_the_photo_is_shown_with_the_bodies_where_its_camera_sees_them(
    chromium, files, photo, body
):
    show(chromium, files / "photo.html")
    shown = state(chromium)
    assert shown["size"][0] > 300
    bodies = posed(*(person.motion for person in photo.people))
    assert max(distances(shown, bodies)) < 0.1
    # The surface, against our rasteriser; they may differ in pixels at its edge.
    drawn = bodies_drawn(chromium)
    scale = np.array(shown["size"]) / SIZE
    centre = tuple((np.array(CENTRE) * scale).tolist())
    camera = FOCAL * scale[0], *shown["size"], centre
    _, cover = shade(np.asarray(bodies.vertices), body.faces, *camera)
    assert drawn[cover > 0.99].mean() > 0.995 and (cover > 0.99).sum() > 8000
    assert drawn[cover == 0].mean() < 0.001  # 0.0024 if shifted by a pixel
    assert chromium.errors == [] and chromium.requests == []


def test_hypotheses_sampling_and_refinement(chromium, files, photo):
    show(chromium, files / "photo.html")
    first, second = photo.people

    def error(motion):
        return distances(state(chromium), posed(motion, second.motion))[0]

    assert error(first.motion) < 1 < 5 < error(first.before)
    chromium.click("[name=variant][value=before]")
    settle(chromium)
    assert error(first.before) < 1
    set_slider(chromium, "trace", 0)
    settle(chromium)
    assert error(first.before) < 1 and state(chromium)["options"]["variant"] == "trace"
    assert chromium.evaluate("document.getElementById('trace-value').textContent") == "step 1 of 2"
    set_slider(chromium, "trace", 2)
    settle(chromium)
    assert error(first.motion) < 1 and state(chromium)["options"]["variant"] == "result"
    alone = bodies_drawn(chromium)
    chromium.click("[data-option=ghosts]")
    assert (bodies_drawn(chromium) & ~alone).sum() > 50  # of the hypothesis that differs
    chromium.click("#people li:first-child input")
    settle(chromium)
    assert [person["visible"] for person in state(chromium)["people"]] == [False, True]
    assert chromium.errors == []


def test_confidence_colours_the_surface(chromium, files):
    show(chromium, files / "photo.html")
    chromium.click("#people li:first-child input")  # only the one without an estimate
    drawn = bodies_drawn(chromium)

    def greyness():
        return np.median(np.ptp(picture_shown(chromium)[drawn], axis=-1))

    assert greyness() > 60  # the person's orange
    chromium.click("[name=colour][value=confidence]")
    assert greyness() < 12
    assert chromium.evaluate("document.getElementById('ramp').hidden") is False


def test_files_are_offered(chromium, files, photo, tmp_path):
    show(chromium, files / "photo.html")
    chromium.download_to(tmp_path)
    chromium.click("#downloads button")
    for _ in range(100):
        saved = [file for file in tmp_path.iterdir() if not file.name.endswith(".crdownload")]
        if saved and saved[0].stat().st_size:
            break
        time.sleep(0.05)
    assert saved[0].read_bytes() == next(iter(photo.downloads.values()))
    assert saved[0].suffix == ".npz" and chromium.requests == []


def test_a_clip_plays_and_steps(chromium, files, clip):
    show(chromium, files / "clip.html", color_scheme="dark")
    assert state(chromium)["frame"] == 0 and state(chromium)["ground"] == 0
    assert [person["visible"] for person in state(chromium)["people"]] == [True, False]
    chromium.press("ArrowRight")
    assert state(chromium)["frame"] == 1
    chromium.click("#step-back")
    assert state(chromium)["frame"] == 0
    chromium.evaluate("document.activeElement.blur()")
    chromium.press(" ")
    assert state(chromium)["playing"]
    chromium.wait("genhmrState().frame > 2")
    chromium.click("#play")
    assert not state(chromium)["playing"]
    frame = state(chromium)["frame"]
    settle(chromium)
    assert state(chromium)["frame"] == frame

    set_slider(chromium, "time", 9)
    settle(chromium)
    bodies = posed(*(person.motion for person in clip.people), frame=9)
    assert max(distances(state(chromium), bodies)) < 0.1
    # While the clip plays, it goes on from the frame that is chosen.
    set_slider(chromium, "time", 0)
    chromium.evaluate("document.getElementById('speed').value = 0.25")
    chromium.click("#play")
    chromium.wait("genhmrState().frame > 0")
    set_slider(chromium, "time", 8)
    settle(chromium)
    assert state(chromium)["playing"] and 8 <= state(chromium)["frame"] < 12
    chromium.click("#play")
    set_slider(chromium, "time", 9)
    settle(chromium)
    # The picture belongs to the same frame: its second channel is the frame's number.
    pixel = "document.getElementById('photo-picture').getContext('2d').getImageData(2, 2, 1, 1)"
    assert chromium.evaluate(f"Array.from({pixel}.data)") == [COLOUR[0], 9, COLOUR[2], 255]
    bar = chromium.evaluate("document.querySelectorAll('.presence-bar')[1].ariaLabel")
    assert bar == "second: seen in 50 % of the frames, filled in 17 %, absent in 33 %"
    assert chromium.errors == [] and chromium.requests == []


def test_every_control_has_a_name_and_a_place_in_the_tab_order(chromium, files):
    show(chromium, files / "clip.html")
    controls = chromium.controls()
    assert len(controls) > 20 and all(name for _, name in controls)
    reached = []
    for _ in range(2):
        chromium.press("Tab")
        reached.append(chromium.evaluate("document.activeElement.id"))
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert chromium.evaluate(outline) == "solid"
    assert reached == ["opacity", "orbit-canvas"]
    chromium.press("ArrowRight")  # turns the view, and no frame
    assert state(chromium)["frame"] == 0


def luminance(colour: str) -> float:
    """Relative luminance of a CSS colour "rgb(r, g, b)" (WCAG 2.2)."""
    parts = np.array([float(part) for part in colour[4:-1].split(",")]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_the_contrast_of_wcag(chromium, files, scheme):
    show(chromium, files / "clip.html", color_scheme=scheme)
    pairs = chromium.evaluate("""
        ["h1", "h2", "#summary", "#people button", "#clock", "#frame-number", "summary", "legend",
         ".presence-row span", ".choice input:checked + span", "[data-side]"].map((name) => {
          const element = document.querySelector(name);
          let behind = element;
          const plain = (e) => getComputedStyle(e).backgroundColor;
          while (plain(behind) === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
          return [name, getComputedStyle(element).color, plain(behind)];
        })""")
    for name, ink, paper in pairs:
        dark, light = sorted((luminance(ink), luminance(paper)))
        assert (light + 0.05) / (dark + 0.05) > 4.5, name
    body = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (luminance(body) > 0.5) == (scheme == "light")


def test_nobody_and_no_picture(chromium, photo, tmp_path):
    empty = dataclasses.replace(photo, people=(), frames=(), downloads={}, title="empty")
    write_page(tmp_path / "empty.html", empty)
    show(chromium, tmp_path / "empty.html")
    assert state(chromium)["people"] == []
    assert chromium.evaluate("document.getElementById('summary').textContent") == "no people"
    assert chromium.errors == []


def test_one_column_without_overflow_on_a_phone(chromium, files):
    show(chromium, files / "clip.html", 390, 844)
    root = "document.documentElement"
    assert chromium.evaluate(f"{root}.scrollWidth") == 390
    sides = "[...document.querySelectorAll('main > *')].map(e => e.getBoundingClientRect().left)"
    assert len(set(chromium.evaluate(sides))) == 1


def test_without_webgl_the_photo_is_shown_and_the_reason_said(files):
    with browser.Browser(flags=("--disable-3d-apis",)) as plain:
        show(plain, files / "photo.html")
        hidden = "document.getElementById('{}').hidden"
        assert plain.evaluate(hidden.format("no-webgl")) is False
        still = "document.getElementById('still')"
        assert plain.evaluate(f"{still}.naturalWidth") == SIZE[0]
        assert plain.evaluate(f"{still}.getBoundingClientRect().width") > 300
        assert plain.requests == []
