"""Markers on the free bodies."""

import numpy as np
import pytest

from genhmr_jax.geometry.anatomy import BODIES
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.markers import CARRIERS, MARKERS, MIRROR, marker_vertices

BODY = load_body("neutral")
PLACES = np.asarray(BODY.template).T[marker_vertices(BODY)]
AT = dict(zip(MARKERS, PLACES, strict=True))
JOINTS = dict(zip(BODY.joint_names, np.asarray(BODY.joint_template), strict=True))


def test_left_and_right():
    assert len(set(marker_vertices(BODY))) == len(MARKERS) == len(CARRIERS) == 70
    np.testing.assert_allclose(PLACES[MIRROR], PLACES * [-1, 1, 1], atol=2e-3)
    for name, other in zip(MARKERS, MIRROR, strict=True):
        assert MARKERS[other] == name or {name[0], MARKERS[other][0]} == {"L", "R"}
    carriers = [BODIES[c] for c in CARRIERS]
    assert {*BODIES} - {*carriers} == {"talus_r", "talus_l", "ulna_r", "ulna_l"}


@pytest.mark.parametrize(
    "joint, one, other, most",
    [("knee", "KNE", "KNM", 0.03), ("ankle", "ANK", "ANM", 0.02), ("elbow", "ELB", "ELM", 0.02),
     ("wrist", "WRA", "WRB", 0.02)],
)  # fmt: skip
def test_pairs_enclose_their_joint(joint, one, other, most):
    """Laboratories take the middle of such a pair as the centre of the joint."""
    middle = (AT[f"R{one}"] + AT[f"R{other}"]) / 2
    assert np.linalg.norm(middle - JOINTS[f"right_{joint}"]) < most


def test_places():
    """x to the left, y up, z forward."""
    assert AT["RASI"][0] < 0 < AT["LASI"][0] and AT["RASI"][2] > AT["RPSI"][2] + 0.1
    assert AT["RASI"][1] > JOINTS["right_hip"][1]
    assert AT["C7"][2] < JOINTS["neck"][2] < AT["CLAV"][2] and AT["T10"][1] < AT["C7"][1]
    assert AT["RKNE"][0] < JOINTS["right_knee"][0] < AT["RKNM"][0]
    assert AT["RWRA"][2] > AT["RWRB"][2]  # the thumb's side is in front: palms look down
    assert AT["RHEE"][2] < JOINTS["right_ankle"][2] < AT["RTOE"][2] - 0.1
    assert AT["RACR"][1] > JOINTS["right_shoulder"][1]


@pytest.mark.parametrize(
    "name, mean, most", [("lite", 15, 45), ("male", 15, 60), ("female", 15, 60)]
)
def test_other_bodies(name, mean, most):
    """Close to the same place of the body: against its joints, in a body of the same height (mm).

    The lite body has a quarter of the vertices, some 3 cm from each other.
    """
    body = load_body(name)
    found = marker_vertices(body)
    assert len(set(found)) == len(MARKERS)
    places, joints = np.asarray(body.template).T, np.asarray(body.joint_template)
    scale = np.ptp(places[:, 1]) / np.ptp(np.asarray(BODY.template)[1])
    near = np.linalg.norm(PLACES[:, None] - np.asarray(BODY.joint_template), axis=-1).argmin(1)
    expected = joints[near] + scale * (PLACES - np.asarray(BODY.joint_template)[near])
    distance = 1e3 * np.linalg.norm(places[found] - expected, axis=-1)
    assert distance.mean() < mean and distance.max() < most
    for side in (-1, 1):  # the knees are between their markers
        at = dict(zip(MARKERS, places[found], strict=True))
        word, letter = ("right", "R") if side < 0 else ("left", "L")
        knee = joints[body.joint_names.index(f"{word}_knee")]
        assert np.linalg.norm((at[f"{letter}KNE"] + at[f"{letter}KNM"]) / 2 - knee) < 0.03
