import jax.numpy as jnp
import numpy as np
import pytest
from smpl_jax import keypoints as kp
from smpl_jax import rotations

SETS = ["SMPL24", "SMPL45", "OPENPOSE25", "COCO17", "EXTRA19", "BODY44"]


@pytest.mark.parametrize("name", SETS)
def test_sets_and_flips(name):
    names, flip = getattr(kp, name), getattr(kp, f"{name}_FLIP")
    assert len(names) == len(set(names)) == int(name[-2:])
    assert [flip[i] for i in flip] == list(range(len(names)))
    for i, n in enumerate(names):
        mirror = names[flip[i]]
        if "left" in n:
            assert mirror == n.replace("left", "right")
        elif "right" in n:
            assert mirror == n.replace("right", "left")
        elif n in kp.SMPL_VERTEX_IDS and n != "nose":
            assert mirror[1:] == n[1:] and {mirror[0], n[0]} in ({"l", "r"}, {"L", "R"})
        else:
            assert mirror == n


def test_flips_equal_the_published_lists():
    """HMR2's permutations (4D-Humans' configuration) and SMPL's pose flip, number by number."""
    openpose = [0, 1, 5, 6, 7, 2, 3, 4, 8, 12, 13, 14, 9, 10, 11, 16, 15, 18, 17]
    openpose += [22, 23, 24, 19, 20, 21]
    extra = [5, 4, 3, 2, 1, 0, 11, 10, 9, 8, 7, 6, 12, 13, 14, 15, 16, 17, 18]
    smpl = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
    assert list(kp.OPENPOSE25_FLIP) == openpose
    assert list(kp.EXTRA19_FLIP) == extra
    assert list(kp.BODY44_FLIP) == openpose + [25 + i for i in extra]
    assert list(kp.SMPL24_FLIP) == smpl


def test_openpose_from_smpl45_equals_the_published_list():
    published = [24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7]
    published += [25, 26, 27, 28, 29, 30, 31, 32, 33, 34]
    assert list(kp.OPENPOSE25_FROM_SMPL45) == published


def test_skeleton_is_symmetric():
    parents, flip = np.array(kp.SMPL24_PARENTS), np.array(kp.SMPL24_FLIP)
    np.testing.assert_array_equal(flip[parents[1:]], parents[flip][1:])


def test_body44_pelvis():
    assert kp.BODY44.index("pelvis_mpii") == 39


def test_flip_of_a_set_without_the_mirror_image_is_refused():
    with pytest.raises(ValueError, match="left_knee"):
        kp.flip_permutation(("nose", "left_knee"))


def test_flip_pose_mirrors_the_rotation():
    """Mirroring x: R -> M R M, and left and right swap."""
    pose = jnp.asarray(np.random.default_rng(0).normal(size=(2, 24, 3)))
    mirror = np.diag([-1.0, 1.0, 1.0])
    expected = (
        mirror @ np.asarray(rotations.axis_angle_to_matrix(pose))[:, list(kp.SMPL24_FLIP)] @ mirror
    )
    np.testing.assert_allclose(
        rotations.axis_angle_to_matrix(kp.flip_pose(pose)), expected, atol=1e-6
    )
    np.testing.assert_allclose(kp.flip_pose(kp.flip_pose(pose)), pose)
    np.testing.assert_allclose(kp.flip_pose(pose.reshape(2, 72)), kp.flip_pose(pose).reshape(2, 72))
    np.testing.assert_allclose(
        kp.flip_rotmats(rotations.axis_angle_to_matrix(pose)), expected, atol=1e-6
    )
