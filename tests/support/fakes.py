"""A made-up recovery result and recoverer, for the tests of everything around the model."""

import dataclasses

import numpy as np
from PIL import Image

from genhmr_jax.recover.people import People

KEYPOINTS = 23


def fake_people(count: int, **extras) -> People:
    """`count` people 2.5 m away, each a tetrahedron-like solid instead of a body, in a 60 x 40
    image."""
    rng = np.random.default_rng(count)
    solid = np.array([[0, -0.4, 0], [0.3, 0.4, 0], [-0.3, 0.4, 0], [0, 0, 0.3]])
    faces = np.array([[0, 1, 2], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    translation = (
        np.stack([np.array([0.2 * person, 0.0, 2.5]) for person in range(count)])
        if count
        else np.zeros((0, 3))
    )
    keypoints = np.concatenate(
        [rng.uniform(5, 35, (count, KEYPOINTS, 2)), rng.uniform(0.5, 1, (count, KEYPOINTS, 1))], -1
    )
    joints = rng.normal(0, 0.2, (count, 24, 3)) + translation[:, None]
    fields = dict(
        boxes=np.tile([10.0, 5, 40, 35], (count, 1)),
        keypoints2d=keypoints,
        keypoint_names=np.array([f"keypoint_{k}" for k in range(KEYPOINTS)]),
        global_orient=np.tile([np.pi, 0, 0], (count, 1)),
        body_pose=rng.normal(0, 0.2, (count, 69)),
        betas=rng.normal(0, 1, (count, 10)),
        weak_camera=np.tile([0.9, 0, 0], (count, 1)),
        translation=translation,
        focal_length=60.0,
        image_size=np.array([60, 40]),
        vertices=solid + translation[:, None],
        joints=joints,
        joints2d=60 * joints[..., :2] / joints[..., 2:] + [30, 20],
        joint_confidence=np.full((count, 24), 0.8),
        faces=faces,
        joint_names=np.array([f"joint_{j}" for j in range(24)]),
        projected_keypoints=keypoints[..., :2] + [3, 4],
        sampled_keypoints=keypoints[..., :2] + [6, 8],
    )
    return People(**{**fields, **extras})


def save_photo(path):
    """A 60 x 40 photo of nothing."""
    Image.new("RGB", (60, 40), (90, 120, 150)).save(path)
    return path


@dataclasses.dataclass
class Calls:
    """What the command asked of the made-up model, and what that shall answer."""

    loaded: list = dataclasses.field(default_factory=list)
    images: list = dataclasses.field(default_factory=list)
    boxes: list = dataclasses.field(default_factory=list)
    keypoints: list = dataclasses.field(default_factory=list)
    masks: list = dataclasses.field(default_factory=list)
    options: list = dataclasses.field(default_factory=list)
    result: People | None = None
    failure: Exception | None = None
    load_failure: Exception | None = None

    def load(self, checkpoint=None, body="neutral", model=None):
        if self.load_failure:
            raise self.load_failure
        self.loaded.append((checkpoint, body))
        return self

    def prepare(
        self, image, *, boxes=None, keypoints=None, masks=None, options=None
    ) -> "FakePrepared":
        if self.failure:
            raise self.failure
        self.images.append(image)
        self.boxes.append(boxes)
        self.keypoints.append(keypoints)
        self.masks.append(masks)
        self.options.append(options)
        given = next((rows for rows in (boxes, keypoints, masks) if rows is not None), None)
        if self.result is not None:
            people = self.result
        elif given is None:
            people = fake_people(2)
        else:
            people = fake_people(len(given), given_index=np.arange(len(given)))
        return FakePrepared(people)

    def recover_prepared(self, photos, options=None) -> list[People]:
        return [one.result for one in photos]

    def preload(self, options, make=False) -> None:
        pass


class FakePrepared:
    """A prepared photo that holds its result. It is its own `people` (Detections) too."""

    def __init__(self, result: People):
        self.result, self.people, self.given = result, self, result.given_index

    def __len__(self) -> int:
        return len(self.result)


def install_fake_recover(monkeypatch) -> Calls:
    """Puts a made-up model in the place of `genhmr_jax.recover.photo.load`."""
    calls = Calls()
    monkeypatch.setattr("genhmr_jax.recover.photo.load", calls.load)
    monkeypatch.setattr("genhmr_jax.io.compilation_cache.enable", lambda: None)
    return calls
