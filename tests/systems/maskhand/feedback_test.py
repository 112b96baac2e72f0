"""Feedback between the steps of sampling a hand: its first estimate, and where it looks."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from flax import nnx
from jax.scipy.ndimage import map_coordinates

from genhmr_jax.core.feedback import DetectedKeypoints, pose_and_project
from genhmr_jax.core.inputs import upright
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.hand_landmarks import next_region
from genhmr_jax.detect.hands import Hands
from genhmr_jax.geometry.hand import HAND_JOINTS, hand_keypoint_model, load_hand
from genhmr_jax.geometry.hand_crop import MARGIN
from genhmr_jax.geometry.hand_pixels import EXTENT
from genhmr_jax.geometry.keypoints import normalize_keypoints
from genhmr_jax.nets.vit import IMAGENET_MEAN, IMAGENET_STD, normalise
from genhmr_jax.systems.maskhand.model import MaskHand, vit_of
from genhmr_jax.systems.maskhand.spec import HAND_FORM, MaskHandSpec

CAMERA = PhotoCamera(900.0, (300.0, 210.0))
BLACK = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture(scope="module")
def hand():
    return hand_keypoint_model(load_hand())


@pytest.fixture(scope="module")
def hands():
    rng = np.random.default_rng(0)
    keypoints = np.ones((4, 21, 3), np.float32)
    keypoints[..., :2] = rng.uniform(-60, 60, (4, 21, 2)) + rng.uniform(150, 350, (4, 1, 2))
    keypoints3d = rng.normal(0, 0.05, (4, 21, 3)).astype(np.float32)
    features = rng.normal(0, 1, (4, 7, 7, 672)).astype(np.float32)
    found = {"keypoints": keypoints, "keypoints3d": keypoints3d, "features": features}
    return dataclasses.replace(Hands.empty(4), right=np.ones(4, np.float32), **found)


def test_the_first_estimate_is_an_upright_right_hand_seen_from_behind(hand):
    pose = HAND_FORM.first_pose(1)
    joints = smpl_jax.forward(hand, jnp.zeros((1, 10)), pose).joints[0]
    at = dict(zip(HAND_JOINTS, np.asarray(joints), strict=True))
    assert at["middle3"][1] < at["middle1"][1] < at["wrist"][1], "y is down: fingers up"
    assert at["thumb3"][0] < at["index1"][0] < at["pinky1"][0], "its thumb is on the left"


def detected_of(recoverer, hands):
    """The keypoints in the axes of the network."""
    _, own = upright(recoverer.system.prepare(BLACK, hands, CAMERA, len(hands)))
    keypoints = normalize_keypoints(own.keypoints, own.view)
    return own, DetectedKeypoints(own.view, keypoints, own.keypoints3d)


def test_an_estimate_looks_where_its_joints_are_in_the_region(hand_recoverer, hands):
    """In the map of the region that the landmark network would look at next."""
    own, detected = detected_of(hand_recoverer, hands)
    network = MaskHand(hand_recoverer.system.spec, rngs=nnx.Rngs(0))
    points = jax.random.uniform(jax.random.key(0), (4, 16, 2), minval=-0.7, maxval=0.7)
    found = network._in_maps(points, detected)
    half, centre = (
        np.asarray(own.view.crop[:, 2:, None] / 2),
        np.asarray(own.view.crop[:, None, :2]),
    )
    pixels = points * half + centre
    for row, keypoints in enumerate(np.asarray(own.keypoints[..., :2])):
        region = next_region(keypoints)
        inside = (pixels[row] - np.array([region.x, region.y])) @ region.axes() / region.side
        np.testing.assert_allclose(found[row], np.clip(inside + 0.5, -0.5, 1.5), atol=2e-3)


@pytest.mark.parametrize("encoder", ["vit_s", "dinov2_s"])
def test_with_a_vit_it_looks_into_the_middle_of_the_picture(hand_recoverer, hands, encoder):
    """What the ViT is given there is what the picture has at the points."""
    spec = MaskHandSpec(encoder=encoder, encoder_depth=1, feedback=True)
    _, detected = detected_of(hand_recoverer, hands)
    network = nnx.eval_shape(lambda: MaskHand(spec, rngs=nnx.Rngs(0)))
    picture = jax.random.uniform(jax.random.key(0), (4, 2), minval=-0.7, maxval=0.7)
    points = picture * EXTENT / MARGIN  # in half sides of the crop
    found = network._in_maps(jnp.tile(points, (4, 1, 1)), detected)[0]
    # A picture whose first two channels are the place of a pixel in it, -1 to 1.
    place = (np.arange(256) + 0.5) / 128 - 1
    image = np.stack([*np.meshgrid(place, place), np.zeros((256, 256))], -1)
    given = normalise(jnp.asarray(image[None]), vit_of(spec))[0]
    given = given * jnp.array(IMAGENET_STD) + jnp.array(IMAGENET_MEAN)
    at = found * jnp.array(given.shape[1::-1]) - 0.5
    seen = [map_coordinates(given[..., c], at.T[::-1], order=1) for c in range(2)]
    np.testing.assert_allclose(jnp.stack(seen, -1), picture, atol=1e-4)


def test_the_camera_is_in_units_of_a_hand(hand, hands, hand_recoverer):
    """A hand of average size fills its region with the first camera."""
    own, _ = detected_of(hand_recoverer, hands)
    zeros = jnp.zeros((4, 10)), jnp.zeros((4, 3)), jnp.zeros(4, jnp.int32)
    pose = HAND_FORM.first_pose(4)
    estimate = pose_and_project(hand, HAND_FORM, own.view, pose, *zeros)
    extent = np.ptp(np.asarray(estimate.points2d), axis=1).max(-1) / 2
    assert ((extent > 0.6) & (extent < 1.0)).all(), "the true extent is 0.8"
