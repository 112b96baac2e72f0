import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax.keypoints import MANO_VERTEX_IDS

from genhmr_jax.geometry import bodies, hand
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.hand import FINGERS, HAND21, HAND_JOINTS, TIPS, load_hand
from genhmr_jax.io.errors import InputError
from support.python2_pickles import python2_pickle

PARENTS = np.array([-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14])
FORWARD = jax.jit(smpl_jax.forward)


class Ch:
    """A stand-in for a chumpy array, pickled under chumpy's name."""

    def __init__(self, x):
        self.x = x


class Csc:
    """A stand-in for a scipy matrix by columns, pickled under scipy's name."""

    def __init__(self, dense):
        columns, rows = np.nonzero(dense.T)
        starts = np.searchsorted(columns, np.arange(dense.shape[1] + 1))
        self._shape, self.data = dense.shape, dense[rows, columns]
        self.indices, self.indptr = rows.astype(np.int32), starts.astype(np.int32)


Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
Csc.__module__, Csc.__qualname__ = "scipy.sparse.csc", "csc_matrix"


def mano_arrays(vertices=778, seed=0) -> dict[str, np.ndarray]:
    """Random tables of MANO's shapes around the skeleton of the free hand."""
    rng = np.random.default_rng(seed)
    joints = np.asarray(load_hand().joint_template, np.float64)
    owner = np.arange(vertices) % 16
    weights, regressor = np.zeros((vertices, 16)), np.zeros((16, vertices))
    for vertex, joint in enumerate(owner):
        weights[vertex, joint] = 0.8
        weights[vertex, rng.choice(16, 2, replace=False)] += 0.1
    template = joints[owner] + rng.normal(0, 0.005, (vertices, 3)) - [0.01, 0, 0]
    for joint in range(16):
        near = np.flatnonzero(owner == joint)[:8]
        regressor[joint, near] = 1 / len(near)
    return {
        "v_template": template,
        "shapedirs": rng.normal(0, 0.002, (vertices, 3, 10)),
        "posedirs": rng.normal(0, 0.001, (vertices, 3, 135)),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.stack([np.where(PARENTS < 0, 2**32 - 1, PARENTS), np.arange(16)]),
        "f": rng.integers(0, vertices, (1538, 3)).astype(np.uint32),
        "hands_mean": rng.normal(size=45),
        "hands_components": rng.normal(size=(45, 45)),
        "hands_coeffs": rng.normal(size=(20, 45)),
    }


def write_mano(path, arrays):
    """An imitation of MANO_RIGHT.pkl: a pickle of Python 2 with chumpy and scipy objects."""
    content = dict(arrays, bs_type="lrotmin", bs_style="lbs")
    content |= {key: Ch(arrays[key]) for key in ("shapedirs", "weights")}
    content["J_regressor"] = Csc(arrays["J_regressor"])
    path.write_bytes(python2_pickle(content))
    return path


def rodrigues(vector):
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def reference_forward(arrays, betas, pose):
    """Vertices and joints as in the paper of SMPL: 4x4 matrices, loops, float64."""
    rotations = np.array([rodrigues(vector) for vector in pose.astype(np.float64)])
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
    joints = arrays["J_regressor"] @ shaped
    rest = shaped + arrays["posedirs"] @ (rotations[1:] - np.eye(3)).reshape(-1)
    world, vertices = [], np.zeros_like(rest)
    for joint, parent in enumerate(PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotations[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
        turned = (rest - joints[joint]) @ world[joint][:3, :3].T + world[joint][:3, 3]
        vertices += arrays["weights"][:, joint, None] * turned
    return vertices, np.array([matrix[:3, 3] for matrix in world])


def random_pose(seed=1, spread=0.5):
    return np.random.default_rng(seed).normal(0, spread, (16, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def mano(tmp_path_factory):
    """(path, arrays) of a fake MANO_RIGHT.pkl."""
    arrays = mano_arrays()
    return write_mano(tmp_path_factory.mktemp("mano") / "MANO_RIGHT.pkl", arrays), arrays


@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_a_mano_file_is_posed_as_in_the_paper(mano, tmp_path, suffix):
    path, arrays = mano
    if suffix == ".npz":
        path = tmp_path / "MANO_RIGHT.npz"
        np.savez(path, **arrays)
    betas, pose = np.random.default_rng(2).normal(size=10), random_pose()
    model = load_hand(path)
    found = FORWARD(model, betas.astype(np.float32), pose)
    vertices, joints = reference_forward(arrays, betas, pose)
    np.testing.assert_allclose(found.vertices, vertices, atol=2e-6)
    np.testing.assert_allclose(found.joints, joints, atol=2e-6)
    assert model.joint_names == HAND_JOINTS and model.vertex_ids == MANO_VERTEX_IDS
    points = np.concatenate([joints, vertices[list(MANO_VERTEX_IDS.values())]])
    expected = points[list(hand.HAND21_FROM_MANO)]
    np.testing.assert_allclose(hand.hand_keypoints(model, found), expected, atol=2e-6)


def test_left_hand_is_the_mirror_image(mano):
    for name in ("free", mano[0]):
        right, left = load_hand(name), load_hand(name, "left")
        betas, pose = np.random.default_rng(3).normal(size=10).astype(np.float32), random_pose(4)
        one, other = FORWARD(right, betas, pose), FORWARD(left, betas, hand.mirror_pose(pose))
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(hand.mirror_points(a), b)
        np.testing.assert_array_equal(np.asarray(left.faces)[:, ::-1], right.faces)
        np.testing.assert_array_equal(hand.mirror_pose(hand.mirror_pose(pose)), pose)


def test_free_hand_is_sound():
    model = load_hand()
    template, faces = np.asarray(model.template).T, np.asarray(model.faces)
    assert template.shape == (1646, 3) and model.num_betas == 10
    assert model.parents == tuple(PARENTS.tolist()) and model is load_hand("free")
    np.testing.assert_allclose(np.sum(model.weights, 0), 1, atol=1e-5)
    corners = template[faces]
    volume = np.sum(corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])) / 6
    assert 2e-4 < volume < 6e-4  # cubic metres; positive: faces look outwards
    place = dict(zip(HAND_JOINTS, np.asarray(model.joint_template), strict=True))
    # A right hand: fingers along -x, thumb forward, little finger at the back.
    assert place["middle3"][0] < place["middle1"][0] < place["wrist"][0] - 0.08
    assert place["thumb3"][2] > place["index1"][2] > place["pinky1"][2]


def test_tips_are_at_the_ends_of_the_fingers():
    model = load_hand()
    template, joints = np.asarray(model.template).T, np.asarray(model.joint_template)
    assert tuple(model.vertex_ids[name] for name in TIPS) == hand.finger_tips(model)
    for name, finger in FINGERS.items():
        bone = joints[finger[2]] - joints[finger[1]]
        last = template[model.vertex_ids[f"{name}_tip"]] - joints[finger[2]]
        length = np.linalg.norm(last)
        assert 0.01 < length < 0.04
        assert last @ bone / (length * np.linalg.norm(bone)) > 0.9


def test_tips_of_a_mesh_without_names_are_found(tmp_path):
    arrays = mano_arrays(vertices=600)
    np.savez(tmp_path / "mine.npz", **arrays)
    model = load_hand(tmp_path / "mine.npz")
    assert tuple(model.vertex_ids) == TIPS
    owner = model.weights.argmax(0)[list(model.vertex_ids.values())]
    assert [HAND_JOINTS[joint] for joint in owner] == [name.replace("_tip", "3") for name in TIPS]


def test_orders_of_keypoints():
    there, back = hand.HAND21_FROM_MANO, hand.MANO_FROM_HAND21
    assert sorted(there) == sorted(back) == list(range(21))
    assert [there[i] for i in back] == list(range(21))
    assert HAND21[4] == "thumb_tip" and HAND21[5:9] == (
        *("index_mcp", "index_pip", "index_dip", "index_tip"),
    )
    assert [hand.MANO_21[i] for i in there[17:]] == ["pinky1", "pinky2", "pinky3", "pinky_tip"]
    assert [hand.MANO_21[i] for i in there[1:5]] == ["thumb1", "thumb2", "thumb3", "thumb_tip"]


def test_keypoints_of_the_reduced_hand_are_those_of_the_whole_and_differentiable():
    model = load_hand()
    small = hand.hand_keypoint_model(model)
    assert small.num_vertices == 5
    poses, betas = np.stack([random_pose(5), random_pose(6)]), jnp.zeros(10)
    points = lambda model, pose: hand.hand_keypoints(model, smpl_jax.forward(model, betas, pose))
    whole, reduced = jax.jit(points)(model, poses), jax.jit(points)(small, poses)
    assert whole.shape == (2, 21, 3)
    np.testing.assert_allclose(whole, reduced, atol=1e-6)
    slope = jax.jit(jax.grad(lambda pose: jnp.sum(points(small, pose)[..., 1])))(poses)
    assert np.all(np.isfinite(slope)) and np.all(np.abs(slope[:, 3]).max(-1) > 1e-4)


def test_principal_components(mano):
    path, arrays = mano
    pca = hand.load_hand_pca(path)
    coefficients = np.random.default_rng(7).normal(size=(4, 6)).astype(np.float32)
    flat = (coefficients @ arrays["hands_components"][:6]).reshape(4, 15, 3)
    np.testing.assert_allclose(pca.pose(coefficients, flat_hand_mean=True), flat, atol=1e-5)
    mean = arrays["hands_mean"].reshape(15, 3)
    np.testing.assert_allclose(pca.pose(coefficients), flat + mean, atol=1e-5)
    with pytest.raises(ValueError, match="46 coefficients, but 45 components"):
        pca.pose(np.zeros(46))


def test_wrong_files_are_called_what_they_are(mano, tmp_path):
    path, arrays = mano
    with pytest.raises(InputError, match=r"no such hand; choose free.*mano.is.tue.mpg.de"):
        load_hand(tmp_path / "MANO_RIGHT.pkl")
    with pytest.raises(InputError, match="no such side of a hand; choose right or left"):
        load_hand("free", "both")
    with pytest.raises(InputError, match=r"is a folder; give the file in it, such as \S*MANO_R"):
        load_hand(path.parent)
    broken = tmp_path / "broken.pkl"
    broken.write_bytes(b"not a pickle")
    with pytest.raises(InputError, match="broken.pkl: refused.*mano.*or use a shipped hand: free"):
        load_hand(broken)
    left = write_mano(
        tmp_path / "LEFT.pkl", arrays | {"v_template": arrays["v_template"] * [-1, 1, 1]}
    )
    with pytest.raises(InputError, match="is a left hand .*give MANO_RIGHT.pkl"):
        load_hand(left)
    named = tmp_path / "named.npz"
    np.savez(named, **arrays, joint_names=np.array(HAND_JOINTS[::-1]))
    with pytest.raises(InputError, match="joints are not MANO's 16"):
        load_hand(named)
    without = tmp_path / "without.npz"
    np.savez(without, **{key: arrays[key] for key in arrays if key != "hands_mean"})
    with pytest.raises(InputError, match=r"holds no table hands_mean of shape \(45,\)"):
        hand.load_hand_pca(without)
    with pytest.raises(InputError, match="no such hand file"):
        hand.load_hand_pca(tmp_path / "none.pkl")


def test_hand_and_body_are_not_mixed_up(mano):
    body = bodies._BODIES.joinpath("lite.npz")
    with pytest.raises(
        InputError, match=r"a body of SMPL \(24 joints\), but MANO \(16 joints\) is needed; MANO's"
    ):
        load_hand(str(body))
    with pytest.raises(
        InputError, match=r"a hand of MANO \(16 joints\), but SMPL \(24 joints\) is needed; SMPL's"
    ):
        load_body(mano[0])
    with pytest.raises(ValueError, match="joints is 21: give 24 for a body or 16 for a hand"):
        smpl_jax.load(mano[0], joints=21)
