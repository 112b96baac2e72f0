"""Every protocol on cases that are computed by hand: bodies whose vertices are the regressor's
joints themselves."""

import dataclasses
import pickle
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import BODY44, EXTRA19, SMPL24

import genhmr_jax
from genhmr_jax.evaluate import measuring
from genhmr_jax.evaluate.bodies import Bodies, Posed, load_bodies
from genhmr_jax.evaluate.datasets import DATASETS
from genhmr_jax.evaluate.protocols import PROTOCOLS
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from support.python2_pickles import python2_pickle

RNG = np.random.default_rng(0)
H36M_NAMES = (
    "pelvis_mpii", "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee",
    "right_ankle", "spine_h36m", "neck_lsp", "jaw_h36m",
    "head_h36m", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow",
    "right_wrist",
)  # fmt: skip
"""The rows of J_regressor_h36m under the names of EXTRA19."""
LENGTHS = {"J19": 19, "H36M": 17, "J24": 24}


@dataclasses.dataclass(frozen=True)
class MadeBodies(Bodies):
    """Bodies whose pose is given, whoever asks."""

    given: Posed | None = None

    def pose(self, pose, betas, genders):
        return self.given


def made_bodies(points):
    """Bodies of the points (B, K, 3) as vertices and as joints, with regressors that return
    them."""
    rotations = jnp.broadcast_to(jnp.eye(3), (len(points), 24, 3, 3))
    given = Posed(jnp.asarray(points, jnp.float32), jnp.asarray(points, jnp.float32), rotations)
    return MadeBodies(
        {}, {name: jnp.eye(count, points.shape[1]) for name, count in LENGTHS.items()}, "", given
    )


def body_rows(count):
    """Rows with poses, without other labels."""
    return {
        "global_orient": np.zeros((count, 3)),
        "body_pose": np.zeros((count, 69)),
        "betas": np.zeros((count, 10)),
        "gender": ["male"] * count,
        "has_pose": np.ones(count),
        "has_betas": np.ones(count),
        "keypoints3d": np.zeros((count, 44, 4)),
        "joints24_3d": np.zeros((count, 24, 4)),
    }


def errors_of(name, shifts, count=None):
    """Errors when each row's point `joint` is predicted `metres` off, for shifts [(joint,
    metres)]."""
    protocol = PROTOCOLS[name]
    size = count or LENGTHS.get(protocol.points, 24)
    points = np.repeat(RNG.normal(0, 0.4, (1, size, 3)), len(shifts), 0)
    bodies = made_bodies(points)
    predicted = points.copy()
    for row, (joint, metres) in enumerate(shifts):
        predicted[row, joint] += [0, metres, 0]
    label = measuring.truth(protocol, bodies, body_rows(len(shifts)))
    np.testing.assert_array_equal(label.weight, 1.0)
    return measuring.measure(protocol, bodies, made_bodies(predicted).given, label)


def test_hmr2():
    """14 of the 19 joints relative to the pelvis (14): the head of Human3.6M counts, the top of the
    head and the spine do not."""
    joint = EXTRA19.index
    shifts = [
        (joint("head_h36m"), 0.14),
        (joint("head_top_lsp"), 1.0),
        (joint("spine_h36m"), 1.0),
        (joint("pelvis_mpii"), 0.05),
    ]
    found = errors_of("hmr2", [*shifts, (slice(None), 3.0)])
    np.testing.assert_allclose(found["mpjpe_mm"], [10, 0, 0, 50, 0], atol=2e-3)
    np.testing.assert_allclose(
        found["mve_mm"], [140 / 19, 1000 / 19, 1000 / 19, 50 * 18 / 19, 0], atol=2e-3
    )
    assert found["pa_mpjpe_mm"][0] > 1 and np.abs(found["pa_mpjpe_mm"][1:]).max() < 2e-3


def test_spin():
    shifts = [(10, 0.14), (7, 1.0), (9, 1.0), (0, 0.05), (3, 0.28)]
    np.testing.assert_allclose(errors_of("spin", shifts)["mpjpe_mm"], [10, 0, 0, 50, 20], atol=2e-3)


def test_emdb_is_relative_to_the_middle_of_the_hips():
    """The left hip 100 mm off moves the pelvis by 50: it is itself 50 mm off, and so are all
    others. The pelvis joint is one of many."""
    shifts = [(SMPL24.index("left_hip"), 0.1), (SMPL24.index("pelvis"), 0.24), (slice(None), 1.0)]
    for name in ("emdb", "emdb-official"):
        found = errors_of(name, shifts)
        np.testing.assert_allclose(found["mpjpe_mm"], [50, 10, 0], atol=2e-3)
        np.testing.assert_allclose(found["mve_mm"], [50, 10, 0], atol=2e-3)


def test_emdb_angles():
    """Nine joints count: a knee 90 degrees off is 10 degrees, the head nothing. Vertices follow the
    joints' transform."""
    protocol, points = PROTOCOLS["emdb-official"], RNG.normal(0, 0.4, (2, 24, 3))
    bodies = made_bodies(points)
    rotations = np.tile(np.eye(3), (2, 24, 1, 1))
    quarter = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    rotations[0, SMPL24.index("left_knee")] = rotations[1, SMPL24.index("head")] = quarter
    label = measuring.truth(protocol, bodies, body_rows(2))
    found = measuring.measure(
        protocol, bodies, bodies.given._replace(rotations=jnp.asarray(rotations)), label
    )
    np.testing.assert_allclose(found["mpjae_deg"], [10, 0], atol=1e-3)
    np.testing.assert_allclose(found["pa_mpjae_deg"], [10, 0], atol=0.1)
    turned = Posed(
        *(jnp.einsum("ij,...j->...i", jnp.asarray(quarter), x) for x in bodies.given[:2]),
        quarter @ bodies.given.rotations,
    )
    found = measuring.measure(protocol, bodies, turned, label)
    assert (
        found["mpjae_deg"] == pytest.approx([90, 90], abs=1e-3)
        and np.abs(found["pa_mpjae_deg"]).max() < 0.1
    )
    assert found["mve_mm"].min() > 50 and np.abs(found["pa_mve_mm"]).max() < 2e-3


def labelled(names, points, order):
    """keypoints3d (1, 44, 4) with these names of EXTRA19 known."""
    keypoints = np.zeros((1, 44, 4))
    for name in names:
        keypoints[0, BODY44.index(name, 25)] = [*points[order.index(name)], 1]
    return {"keypoints3d": keypoints}


@pytest.mark.parametrize(
    ("name", "joints"),
    [("spin-h36m", 14), ("mpi-inf-3dhp", 17)],
    ids=["spin-h36m: 14 joints", "mpi-inf-3dhp: 17 joints"],
)
def test_labels_of_motion_capture(name, joints):
    """Predictions in the order of the regressor, labels by name: equal ones give 0, a spine off
    counts among 17 only."""
    points = RNG.normal(0, 0.4, (17, 3))
    label = measuring.truth(
        PROTOCOLS[name], made_bodies(points[None]), labelled(H36M_NAMES, points, H36M_NAMES)
    )

    def error(joint, metres):
        moved = points[None] + [0, 0, 4.0]
        moved[0, H36M_NAMES.index(joint)] += [metres, 0, 0]
        bodies = made_bodies(moved)
        return measuring.measure(PROTOCOLS[name], bodies, bodies.given, label)

    assert error("head_h36m", 0.0)["mpjpe_mm"][0] == pytest.approx(0, abs=2e-3)
    assert error("right_ankle", 0.17)["mpjpe_mm"][0] == pytest.approx(170 / joints, abs=2e-3)
    assert error("spine_h36m", 0.17)["mpjpe_mm"][0] == pytest.approx(
        10 if joints == 17 else 0, abs=2e-3
    )
    found = error("pelvis_mpii", 0.2)
    assert found["mpjpe_mm"][0] == pytest.approx(
        200 * (joints if joints == 14 else 16) / joints, abs=2e-3
    ), "the pelvis itself stays"
    if joints == 17:
        assert found["pck150"][0] == pytest.approx(100 / 17, abs=1e-3) and found["auc"][
            0
        ] == pytest.approx(100 * 30 / 31 / 17, abs=1e-3)
        assert error("left_wrist", 0.2)["pck150"][0] == pytest.approx(1600 / 17, abs=1e-3)


def test_hmr2_on_label_files():
    points = RNG.normal(0, 0.4, (19, 3))
    rows = labelled(EXTRA19, points, EXTRA19)
    bodies = made_bodies(points[None] + [1, 2, 3])
    label = measuring.truth(PROTOCOLS["hmr2-keypoints"], bodies, rows)
    assert measuring.measure(PROTOCOLS["hmr2-keypoints"], bodies, bodies.given, label)["mpjpe_mm"][
        0
    ] == pytest.approx(0, abs=2e-3)
    rows["keypoints3d"][0, 25] = 0  # the right ankle is not known: 13 joints are left
    label = measuring.truth(PROTOCOLS["hmr2-keypoints"], bodies, rows)
    moved = points[None].copy()
    moved[0, :2] += [0.13, 0, 0]
    bodies = made_bodies(moved)
    assert measuring.measure(PROTOCOLS["hmr2-keypoints"], bodies, bodies.given, label)["mpjpe_mm"][
        0
    ] == pytest.approx(10, abs=2e-3)
    rows["keypoints3d"][0, 39] = 0  # without the pelvis there is nothing to align
    assert measuring.truth(PROTOCOLS["hmr2-keypoints"], bodies, rows).weight[0] == 0


def test_limbs12():
    joints = RNG.normal(0, 0.4, (24, 3))
    names = EXTRA19[:12]
    rows = labelled(names, joints, SMPL24)
    moved = joints[None] - 7.0
    moved[0, SMPL24.index("left_elbow")] += [0, 0.12, 0]
    bodies = made_bodies(moved)
    label = measuring.truth(PROTOCOLS["limbs12"], bodies, rows)
    assert measuring.measure(PROTOCOLS["limbs12"], bodies, bodies.given, label)["mpjpe_mm"][
        0
    ] == pytest.approx(10, abs=2e-3)


def test_joints24_takes_the_labels_joints_before_a_body():
    protocol, joints = PROTOCOLS["joints24"], RNG.normal(0, 0.4, (3, 24, 3))
    rows = body_rows(3)
    rows["joints24_3d"][0] = np.concatenate(
        [joints[0] + 2.0, np.ones((24, 1))], -1
    )  # the first row has its own
    rows["has_pose"][2] = 0  # the last has nothing
    bodies = made_bodies(joints + RNG.normal(0, 0.1, joints.shape))
    label = measuring.truth(protocol, bodies, rows)
    np.testing.assert_array_equal(label.weight, [1, 1, 0])
    found = measuring.measure(protocol, bodies, made_bodies(joints).given, label)["mpjpe_mm"]
    assert found[0] == pytest.approx(0, abs=2e-3) and found[1] > 50


def test_accelerations_count_neighbouring_frames_only():
    frames = np.array([0, 1, 2, 3, 7, 8, 9, 10])
    target = np.zeros((8, 14, 3), np.float32)
    predicted = target.copy()
    predicted[frames > 3] += np.float32(5.0)  # a jump over the gap
    predicted[:, 0, 1] += np.float32(0.5 * 0.014 * frames**2)  # one joint of 14 accelerates
    found = measuring.acceleration_errors(predicted, target, frames)
    np.testing.assert_allclose(found, [1, 1, 1, 1], atol=1e-2)
    shuffled = RNG.permutation(8)
    again = measuring.acceleration_errors(predicted[shuffled], target[shuffled], frames[shuffled])
    np.testing.assert_array_equal(again, found)
    assert len(measuring.acceleration_errors(predicted[:2], target[:2], frames[:2])) == 0


def test_jitter_leaves_out_the_joints_that_emdb_leaves_out():
    frames = np.arange(5)
    cubic = np.float32(0.001 * frames**3)
    for joint, wanted in (
        (SMPL24.index("left_knee"), 6 * 0.001 * 27000 / 24 / 10),
        (SMPL24.index("left_ankle"), 0),
    ):
        predicted = np.zeros((5, 24, 3), np.float32)
        predicted[:, joint, 0] = cubic
        found = measuring.emdb_jitter(predicted, frames, 30.0)
        np.testing.assert_allclose(found, [wanted], rtol=1e-3, atol=1e-6)
        shuffled = RNG.permutation(5)
        again = measuring.emdb_jitter(predicted[shuffled], 2 * frames[shuffled], 30.0)
        np.testing.assert_array_equal(again, found)  # of good frames, whatever their distance
    assert len(measuring.emdb_jitter(predicted[:3], frames[:3], 30.0)) == 0


def test_each_row_is_posed_on_the_body_of_its_gender():
    bodies = load_bodies(None)
    pose, betas = (
        RNG.normal(0, 0.2, (3, 72)).astype(np.float32),
        RNG.normal(size=(3, 10)).astype(np.float32),
    )
    found = bodies.pose(pose, betas, ["female", "male", "female"])
    for row, gender in enumerate(("female", "male", "female")):
        wanted = smpl_jax.forward(load_body(gender), betas[row], pose[row])
        np.testing.assert_allclose(found.joints[row], wanted.joints, atol=1e-5)
        np.testing.assert_allclose(found.vertices[row], wanted.vertices, atol=1e-5)
    wanted = Rotation.from_rotvec(pose[0].reshape(24, 3))
    np.testing.assert_allclose(
        found.rotations[0, 4], (wanted[0] * wanted[1] * wanted[4]).as_matrix(), atol=1e-5
    )


def test_missing_files_are_named_all_at_once(tmp_path):
    with pytest.raises(InputError) as error:
        load_bodies(tmp_path, ["J19", "H36M"])
    for name in (
        "SMPL_NEUTRAL.pkl",
        "SMPL_MALE.pkl",
        "SMPL_FEMALE.pkl",
        "SMPL_to_J19.pkl",
        "J_regressor_h36m.npy",
    ):
        assert name in str(error.value)
    with pytest.raises(InputError, match="--body-dir: is not given.*SMPL_to_J19.pkl"):
        load_bodies(None, ["J19"])


def test_a_regressor_of_another_mesh_is_refused(tmp_path):
    body = load_body("lite")
    source = Path(genhmr_jax.__file__).parent / "assets" / "body" / "lite.npz"
    (tmp_path / "SMPL_NEUTRAL.npz").write_bytes(source.read_bytes())
    np.save(tmp_path / "J_regressor_h36m.npy", np.zeros((17, 6890), np.float32))
    with pytest.raises(InputError, match=rf"\(17, 6890\), not of \(17, {body.num_vertices}\)"):
        load_bodies(tmp_path, ["H36M"], ["neutral"])
    (tmp_path / "J_regressor_h36m.npy").write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no joint regressor"):
        load_bodies(tmp_path, ["H36M"], ["neutral"])
    from_npz = load_bodies(tmp_path, ["J24"], ["neutral"])
    with np.load(source) as file:  # the same as a Python 2 pickle, which is found first
        keys = (
            "v_template",
            "shapedirs",
            "posedirs",
            "J_regressor",
            "weights",
            "kintree_table",
            "f",
        )
        (tmp_path / "SMPL_NEUTRAL.pkl").write_bytes(
            python2_pickle({key: file[key] for key in keys})
        )
    (tmp_path / "SMPL_NEUTRAL.npz").unlink()
    for found in (from_npz, load_bodies(tmp_path, ["J24"], ["neutral"])):
        np.testing.assert_allclose(
            found.regressors["J24"] @ body.template.T, body.joint_template, atol=1e-5
        )


def test_a_regressor_that_is_a_harmful_pickle_is_refused(tmp_path):
    source = Path(genhmr_jax.__file__).parent / "assets" / "body" / "lite.npz"
    (tmp_path / "SMPL_NEUTRAL.npz").write_bytes(source.read_bytes())

    class Harm:
        def __reduce__(self):
            return Path.touch, (tmp_path / "harmed",)

    (tmp_path / "SMPL_to_J19.pkl").write_bytes(pickle.dumps(Harm()))
    with pytest.raises(InputError, match="SMPL_to_J19.pkl.*nothing in it was run"):
        load_bodies(tmp_path, ["J19"], ["neutral"])
    assert not (tmp_path / "harmed").exists()


def test_every_dataset_names_known_protocols_and_each_says_what_it_does():
    named = {name for dataset in DATASETS.values() for name in dataset.published + dataset.free}
    assert named == set(PROTOCOLS)
    for protocol in PROTOCOLS.values():
        assert all(word in protocol.text for word in ("elvis", "joints", "PA:", "Mean")), (
            protocol.name
        )
