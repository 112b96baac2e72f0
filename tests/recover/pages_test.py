"""The scenes of viewer pages, from made-up results."""

import dataclasses

import numpy as np
import smpl_jax

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.recover.motions import hypotheses_of_people
from genhmr_jax.recover.pages import photo_scene
from support.fakes import fake_people


def test_hypotheses_are_where_they_were_found():
    """Their own shapes and places; the page has one shape, and their pelvises stay."""
    rng, free = np.random.default_rng(0), load_body("lite")
    # The pelvis of SMPL moves with the shape, that of the free body does not.
    body = dataclasses.replace(free, joint_shapedirs=free.joint_shapedirs + 0.02)
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
    for i, motion in enumerate(found):
        np.testing.assert_array_equal(motion.betas, own["hypothesis_betas"][0, i])
        np.testing.assert_array_equal(motion.translation[0], own["hypothesis_translation"][0, i])
    (person,) = photo_scene("x", None, people, body).people
    pelvis = lambda of: smpl_jax.forward(body, of.betas[None], of.poses).joints[0, 0]
    for motion, shown in zip(found, person.hypotheses, strict=True):
        np.testing.assert_array_equal(shown.betas, people.betas[0])
        expected = pelvis(motion) + motion.translation[0]
        np.testing.assert_allclose(pelvis(shown) + shown.translation[0], expected, atol=1e-5)
        assert np.abs(shown.translation - motion.translation).max() > 1e-3
