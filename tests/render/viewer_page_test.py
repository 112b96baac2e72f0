"""The file of a viewer page: its data, its size, and what may run in it."""

import dataclasses
import hashlib
import html.parser
import importlib.util
from base64 import b64decode, b64encode

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.motion import WORLD
from genhmr_jax.render.rest import Rest
from genhmr_jax.render.viewer import encode
from genhmr_jax.render.viewer.page import page, write_page
from genhmr_jax.render.viewer.scene import PersonScene, Scene
from support.paths import ROOT
from support.viewer_scenes import (
    CENTRE,
    FOCAL,
    HOSTILE,
    SIZE,
    clip_scene,
    motion,
    photo_scene,
    picture,
    rest_body,
)


class Elements(html.parser.HTMLParser):
    """The elements of a page, with their attributes and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[list] = []
        self.inside = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append([tag, dict(attributes), ""])
        self.inside = True

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.found[-1][2] += data

    def all(self, tag: str) -> list[tuple[dict, str]]:
        return [(attributes, text) for name, attributes, text in self.found if name == tag]


@pytest.fixture(scope="module")
def body() -> Rest:
    return rest_body("lite")


@pytest.fixture(scope="module")
def photo(body) -> Scene:
    return photo_scene(body)


@pytest.fixture(scope="module")
def clip(body) -> Scene:
    return clip_scene(body)


def test_rotations_keep_a_ten_thousandth_of_a_radian():
    poses = np.random.default_rng(0).normal(0, 1.5, (200, 24, 3))
    packed = encode.pack_rotations(poses)
    assert packed.dtype == np.int16 and packed.shape == (200, 24, 4)
    read = Rotation.from_quat(packed.reshape(-1, 4).astype(float))
    error = (read * Rotation.from_rotvec(poses.reshape(-1, 3)).inv()).magnitude()
    assert error.max() < 1e-4


def test_vertices_weights_and_confidence(body):
    packed, low, high = encode.pack_vertices(body.vertices)
    read = low + (high - low) * packed / 65535
    assert np.abs(read - body.vertices).max() < 2e-5
    weights = encode.pack_weights(body.skin_weights)
    np.testing.assert_array_equal(weights.sum(1, dtype=int), 255)
    assert np.abs(weights / 255 - body.skin_weights).max() < 1 / 255
    confidence = encode.pack_confidence(np.array([[0, 0.5, 1, np.nan, 2]]))
    assert confidence.tolist() == [[0, 127, 254, 255, 254]]


def test_half_a_minute_of_two_people_is_below_3_mb():
    count, body = 900, rest_body("neutral")
    people = tuple(PersonScene(motion(f"person {i}", count, i), body) for i in range(2))
    scene = Scene("clip", SIZE, FOCAL, CENTRE, np.arange(count) / 30, people)
    size = len(page(scene).encode())
    assert 1e6 < size < 1.6e6


def test_equal_scenes_give_equal_files_which_hold_the_licence(body, photo, tmp_path):
    write_page(path := tmp_path / "photo.html", photo)
    assert path.read_text("utf-8") == page(photo_scene(body))
    assert [file.name for file in tmp_path.iterdir()] == ["photo.html"]
    assert "Permission is hereby granted, free of charge" in path.read_text("utf-8")


def test_names_stay_text_and_the_policy_names_every_script(photo):
    elements = Elements(page(photo))
    assert [text for _, text in elements.all("title")] == [HOSTILE]
    assert elements.all("h1")[0][1] == HOSTILE
    (image,) = elements.all("img")
    assert image[0]["alt"] == HOSTILE and b64decode(image[0]["src"].split(",")[1]) == picture()
    scripts = [text for attributes, text in elements.all("script") if "type" not in attributes]
    policy = next(a["content"] for a, _ in elements.all("meta") if "http-equiv" in a)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    styles = [text for _, text in elements.all("style")]
    for texts, kind in ((scripts, "script-src"), (styles, "style-src")):
        hashes = [b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        assert rules[kind].split() == [f"'sha256-{digest}'" for digest in hashes]
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert not any(name.startswith("on") for _, a, _ in elements.found for name in a)


def test_the_bundle_is_the_one_that_the_tool_builds():
    spec = importlib.util.spec_from_file_location("build", ROOT / "tools" / "build_viewer.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    script = (tool.ASSETS / "three.min.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == tool.BUNDLE
    assert len(script) < 700_000


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"times": np.arange(3.0)}, "1 pictures for 3 times"),
        ({"frames": (), "times": np.arange(2.0)}, "1 frames of a scene of 2"),
        ({"world_rotation": np.eye(3)}, "belong together"),
    ],
)
def test_scenes_whose_parts_do_not_match(photo, change, problem):
    with pytest.raises(ValueError, match=problem):
        dataclasses.replace(photo, **change)


def test_people_that_do_not_fit_and_pictures_of_no_known_format(photo, clip):
    def with_person(scene, **change):
        people = (dataclasses.replace(scene.people[1], **change),)
        return dataclasses.replace(scene, people=people)

    person = clip.people[1]
    world = dataclasses.replace(person.motion, axes=WORLD)
    endless = dataclasses.replace(person.motion, translation=person.motion.translation + np.inf)
    with pytest.raises(ValueError, match="axes are 'world'"):
        with_person(clip, motion=world)
    with pytest.raises(ValueError, match="not finite"):
        with_person(clip, before=endless)
    with pytest.raises(ValueError, match="belongs to a photo"):
        with_person(clip, trace=photo.people[0].trace)
    with pytest.raises(ValueError, match="neither a JPEG"):
        page(dataclasses.replace(photo, frames=(b"GIF89a",)))
