"""A photo and a clip for the tests of the viewer, of people who turn and wave."""

import dataclasses
import io

import numpy as np
from PIL import Image
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.motion import ABSENT, FILLED, OBSERVED, Motion
from genhmr_jax.render.rest import Rest, rest_of, with_pose
from genhmr_jax.render.viewer.scene import PersonScene, Scene, Trace

SIZE, FOCAL, CENTRE = (400, 300), 350.0, (210.0, 140.0)
COLOUR = (255, 0, 255)  # of the pictures, which no body has
FRAMES = 12
HOSTILE = '</script><img src=x onerror="fail()">&amp;'
PITCH = Rotation.from_euler("x", 0.2).as_matrix()
WORLD_ROTATION, WORLD_TRANSLATION = np.diag([1.0, -1.0, -1.0]) @ PITCH, np.array([0.3, 1.4, 2.0])


def rest_body(name: str) -> Rest:
    return rest_of(load_body(name), np.zeros(10))


def motion(name: str, count: int, seed: int) -> Motion:
    """A body that turns and waves in front of the camera."""
    rng = np.random.default_rng(seed)
    bend = rng.normal(0, 0.25, (24, 3)) * np.sin(np.arange(count) / 5 + seed + 1)[:, None, None]
    upright = Rotation.from_euler("x", 180, degrees=True)
    turn = Rotation.from_euler("y", 0.1 * np.arange(count)[:, None] + 0.4 * seed)
    bend[:, 0] = (upright * turn).as_rotvec()
    place = np.array([0.5 * seed - 0.2, 0.1, 3.6 + 0.4 * seed])
    return Motion(
        name,
        times=np.arange(count) / 24,
        betas=np.zeros(10, np.float32),
        poses=bend.astype(np.float32),
        translation=(place + np.linspace(0, 0.2, count)[:, None]).astype(np.float32),
        state=np.full(count, OBSERVED),
        confidence=rng.uniform(0.2, 1, (count, 24)).astype(np.float32),
    )


def picture(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, (COLOUR[0], shade, COLOUR[2])).save(buffer, "PNG")
    return buffer.getvalue()


def photo_scene(body: Rest) -> Scene:
    one = motion(HOSTILE, 1, 0)
    other = dataclasses.replace(
        motion("second", 1, 1), confidence=np.full((1, 24), np.nan, np.float32)
    )
    half = dataclasses.replace(one, poses=one.poses * [[[1.0]] + [[0.5]] * 23])
    steps = Trace(np.concatenate([half.poses, one.poses]), np.repeat(one.translation, 2, 0))
    bodies = [with_pose(body, load_body("lite"), person.poses) for person in (one, other)]
    first = PersonScene(one, bodies[0], hypotheses=(half, one), before=half, trace=steps)
    files = {"a <b>.npz": bytes(range(256)) * 9}
    people = (first, PersonScene(other, bodies[1]))
    return Scene(HOSTILE, SIZE, FOCAL, CENTRE, np.zeros(1), people, (picture(),), downloads=files)


def clip_scene(body: Rest, count: int = FRAMES) -> Scene:
    state = np.full(count, OBSERVED)
    state[: count // 3], state[count // 2 : count // 2 + 2] = ABSENT, FILLED
    second = dataclasses.replace(motion("second", count, 1), state=state)
    people = (PersonScene(motion("first", count, 0), body), PersonScene(second, body))
    times = np.arange(count) / 24
    frames = tuple(picture(i) for i in range(count))
    world = (WORLD_ROTATION, WORLD_TRANSLATION)
    return Scene("clip", SIZE, FOCAL, CENTRE, times, people, frames, *world)
