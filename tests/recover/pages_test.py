"""The scenes of viewer pages, from made-up results."""

import dataclasses

import numpy as np
import pytest
import smpl_jax

from genhmr_jax.core.solve import Traced
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.motion import OBSERVED
from genhmr_jax.recover.motions import hypotheses_of_people
from genhmr_jax.recover.pages import clip_scene, photo_scene
from support.export_motions import clip, motion
from support.fakes import fake_people


@pytest.fixture(scope="module")
def body():
    """A body whose pelvis moves with the shape, as SMPL's does; that of the free body does not."""
    free = load_body("lite")
    return dataclasses.replace(free, joint_shapedirs=free.joint_shapedirs + 0.02)


def pelvises(body, motion) -> np.ndarray:
    betas = np.tile(motion.betas, (len(motion), 1))
    return smpl_jax.forward(body, betas, motion.poses).joints[:, 0] + motion.translation


def test_hypotheses_are_where_they_were_found(body):
    """Their own shapes and places; the page has one shape, and their pelvises stay."""
    rng = np.random.default_rng(0)
    shape = lambda *size: rng.normal(0, 1, (1, 3, *size)).astype(np.float32)
    own = {
        "hypothesis_global_orient": shape(3),
        "hypothesis_body_pose": 0.2 * shape(69),
        "hypothesis_betas": 2 * shape(10),
        "hypothesis_translation": shape(3) + np.float32([0, 0, 5]),
        "hypothesis_joints": shape(24, 3),
        "hypothesis_confidence": np.full((1, 3, 24), 0.5, np.float32),
    }
    people = fake_people(1, **own)
    (found,) = hypotheses_of_people(people)
    for i, one in enumerate(found):
        np.testing.assert_array_equal(one.betas, own["hypothesis_betas"][0, i])
        np.testing.assert_array_equal(one.translation[0], own["hypothesis_translation"][0, i])
    (person,) = photo_scene("x", None, people, body).people
    for one, shown in zip(found, person.hypotheses, strict=True):
        np.testing.assert_array_equal(shown.betas, people.betas[0])
        expected = pelvises(body, one)
        np.testing.assert_allclose(pelvises(body, shown), expected, atol=1e-5)
        assert np.abs(shown.translation - one.translation).max() > 1e-3


def test_the_steps_of_sampling_are_where_they_were_found(body):
    """Each had a shape of its own."""
    rng, people = np.random.default_rng(1), fake_people(2)
    shape = lambda *size: rng.normal(0, 0.3, (2, 4, *size)).astype(np.float32)
    traced = Traced(vertices=shape(9, 3), poses=shape(24, 3), joints=shape(24, 3))
    for i, person in enumerate(photo_scene("x", None, people, body, traced).people):
        steps = dataclasses.replace(
            person.motion, poses=person.trace.poses, translation=person.trace.translation,
            times=np.arange(4.0), state=np.full(4, OBSERVED),
        )  # fmt: skip
        np.testing.assert_allclose(pelvises(body, steps), traced.joints[i, :, 0], atol=1e-5)
        last = pelvises(body, person.before)
        np.testing.assert_allclose(last, traced.joints[i, -1:, 0], atol=1e-5)


def test_the_answers_of_single_frames_are_where_they_were_found(body):
    rng, found = np.random.default_rng(2), clip([motion(1, 6), motion(2, 6, absent=(4, 5))], body)
    joints = rng.normal(0, 1, found.joints.shape).astype(np.float32)
    single = {
        "frame_global_orient": found.global_orient,
        "frame_body_pose": found.body_pose,
        "frame_translation": found.translation,
        "frame_joints": joints,
    }
    scene = clip_scene("x", (), dataclasses.replace(found, **single), body)
    for own, person in zip(joints, scene.people, strict=True):
        known = person.before.present
        expected = own[known, 0]
        np.testing.assert_allclose(pelvises(body, person.before)[known], expected, atol=1e-5)
