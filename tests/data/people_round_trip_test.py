"""From the official files to a training row: reader, augmentation, crop and camera keep image,
keypoints and body together."""

import numpy as np
import pytest
from smpl_jax.keypoints import SMPL24

from genhmr_jax.data import augment, people
from genhmr_jax.data.sources import find
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.keypoints import DETECTED
from support import people_fixtures

SHARED = [name for name in DETECTED if name in SMPL24]
POINT, JOINT = [DETECTED.index(name) for name in SHARED], [SMPL24.index(name) for name in SHARED]


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


def rows(name, folder, body, augmented):
    truth, source = people_fixtures.write(name, folder, body=body), find(name)
    splits = dict.fromkeys(person.split for person in truth)
    records = [
        record for split in splits for record in source.records(folder, split, source.report())
    ]
    draw = lambda i: (
        augment.draw(augment.AugmentSpec(), 3, i) if augmented else augment.Augmentation()
    )
    samples = [
        (people.Sample(name, record), draw(i))
        for i, record in enumerate(records * (3 if augmented else 1))
    ]
    return people.rows_of(samples, people.Skeleton.of(body)), [sample.flip for _, sample in samples]


@pytest.mark.parametrize("augmented", [False, True])
@pytest.mark.parametrize("name", ["bedlam", "threedpw", "emdb"])
def test_posed_joints_land_on_the_labelled_keypoints(tmp_path, body, name, augmented):
    """Within half a pixel of the photo: the body of the row, through the camera of its crop."""
    row, flips = rows(name, tmp_path, body, augmented)
    assert row.known.camera.all() and row.known.joints3d.all()
    assert not augmented or len(set(flips)) == 2
    view = row.view
    joints = row.joints + view.translation(row.weak_camera)[:, None]
    pixels = joints[..., :2] / joints[..., 2:] * view.focal[:, None, None] + view.centre[:, None]
    known = row.points2d_confidence[:, POINT] > 0
    assert known.mean() > 0.9
    assert np.abs(pixels[:, JOINT] - row.points2d[:, POINT])[known].max() < 0.5


@pytest.mark.parametrize("name", ["bedlam", "threedpw", "emdb"])
def test_keypoints_lie_on_the_painted_joints_of_the_crop(tmp_path, body, name):
    row, flips = rows(name, tmp_path, body, augmented=True)
    ankle, checked = DETECTED.index("left_ankle"), 0
    for i, flip in enumerate(flips):
        if flip or row.keypoints[i, ankle, 2] == 0:  # in a mirror the green disc is on the right
            continue
        crop = row.view.crop[i]
        x, y = (row.points2d[i, ankle] - crop[:2] + crop[2] / 2) * 256 / crop[2]
        red, green, blue = row.images[i, int(y), int(x)].astype(int)
        assert green > red + 80 and green > blue + 80
        checked += 1
    assert checked >= 2
