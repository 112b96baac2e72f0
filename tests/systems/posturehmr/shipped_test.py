"""The model that comes with the package, on the sample photo."""

import numpy as np
import pytest

import genhmr_jax
from genhmr_jax.cli.recover import SAMPLE_PHOTO
from genhmr_jax.io.model_folder import load_meta
from genhmr_jax.recover import photo
from genhmr_jax.recover.photo import RecoverOptions

FOLDER = photo.default_checkpoint("posturehmr")


@pytest.fixture(scope="module")
def recoverer():
    return photo.load(model="posturehmr")


def test_its_size_and_kind(recoverer):
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    assert size <= 4 * 2**20
    assert recoverer.system.kind == load_meta(FOLDER)["kind"] == "posturehmr"


def test_it_recovers_the_sample_photo(recoverer):
    """The body is at the keypoints, upright, and faces the camera."""
    image = genhmr_jax.read_image(SAMPLE_PHOTO)
    people = recoverer.recover(image, options=RecoverOptions(refine_steps=0))
    assert len(people) == 1
    joints, box = people.joints[0], people.boxes[0]
    height = box[3] - box[1]
    found = people.joints2d[0]
    seen = dict(zip(people.keypoint_names, people.keypoints2d[0], strict=True))
    for name, joint in (("left_wrist", 20), ("right_wrist", 21), ("left_knee", 4)):
        gap = np.linalg.norm(found[joint] - seen[name][:2])
        assert gap < 0.06 * height, f"{name}: {gap:.0f} px of {height:.0f}"
    assert joints[15, 1] < joints[0, 1] < joints[7, 1], "head above pelvis above ankle"
    assert joints[1, 0] > joints[2, 0], "her left is on the right of the picture"
    vertices = people.vertices[0]
    assert 1.3 < np.ptp(vertices[:, 1]) < 2.1
