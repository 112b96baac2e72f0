"""CMU mocap: asf/amc and BVH are read and turned into SMPL's joints as they should."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPL24_PARENTS

from genhmr_jax.data.sources import asf, bvh, cmu_mocap, retarget, skeleton
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from support import pose_fixtures
from support.pose_fixtures import records


def matrix(axis, degrees):
    """A rotation about a coordinate axis, written out."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]


def asf_ends(values, frame):
    """Where the bones end in a frame: forward kinematics of CMU's definition with 4x4 matrices, a
    bone at a time."""
    row = values["root"][frame]
    place = np.eye(4)
    place[:3, :3], place[:3, 3] = (
        matrix("z", row[5]) @ matrix("y", row[4]) @ matrix("x", row[3]),
        row[:3],
    )
    places, ends = {"root": place}, {}
    waiting = list(pose_fixtures.BONES)
    while waiting:
        name, parent, direction, length, axis, freedom = waiting.pop(0)
        if parent not in places:
            waiting.append((name, parent, direction, length, axis, freedom))
            continue
        angles = dict(zip(freedom.split(), values[name][frame], strict=True)) if freedom else {}
        frame_of_bone = matrix("z", axis[2]) @ matrix("y", axis[1]) @ matrix("x", axis[0])
        turn = (
            matrix("z", angles.get("rz", 0))
            @ matrix("y", angles.get("ry", 0))
            @ matrix("x", angles.get("rx", 0))
        )
        local = np.eye(4)
        local[:3, :3] = frame_of_bone @ turn @ np.linalg.inv(frame_of_bone)
        shift = np.eye(4)
        shift[:3, 3] = np.array(direction) * length
        places[name] = places[parent] @ local @ shift
        ends[name] = places[name][:3, 3]
    return ends


@pytest.fixture(scope="module")
def amc(tmp_path_factory):
    folder, values = (
        tmp_path_factory.mktemp("asf"),
        pose_fixtures.amc_values(np.random.default_rng(3), 6),
    )
    (folder / "01.asf").write_text(pose_fixtures.asf_text())
    (folder / "01_01.amc").write_text(pose_fixtures.amc_text(values))
    return asf.read_amc(folder / "01_01.amc", asf.read_asf(folder / "01.asf")), values


def test_asf_forward_kinematics(amc):
    found, values = amc
    positions, _ = found.forward()
    children = {parent for _, parent, *_ in pose_fixtures.BONES}
    for frame in range(6):
        for name, end in asf_ends(values, frame).items():
            joint = (
                f"{name}_end"
                if name not in children
                else next(bone[0] for bone in pose_fixtures.BONES if bone[1] == name)
            )
            np.testing.assert_allclose(positions[frame, found.names.index(joint)], end, atol=1e-4)


def bvh_positions(row, order):
    """Forward kinematics of a frame of a .bvh with 4x4 matrices."""
    offsets = {name: (parent, offset) for name, parent, offset in pose_fixtures.BVH_JOINTS}
    places = {}
    for joint, name in enumerate(pose_fixtures.bvh_order()):
        parent, offset = offsets[name]
        local = np.eye(4)
        for axis, degrees in zip(order, row[3 + 3 * joint : 6 + 3 * joint], strict=True):
            local[:3, :3] = local[:3, :3] @ matrix(axis, degrees)
        local[:3, 3] = row[:3] if parent is None else offset
        places[name] = places[parent] @ local if parent else local
    return {name: place[:3, 3] for name, place in places.items()}


@pytest.mark.parametrize("order", ["zyx", "xyz", "yxz"])
def test_bvh_forward_kinematics(tmp_path, order):
    values = pose_fixtures.bvh_values(np.random.default_rng(4), 4)
    (tmp_path / "01_01.bvh").write_text(
        pose_fixtures.bvh_text(values, " ".join(f"{axis.upper()}rotation" for axis in order))
    )
    found = bvh.read_bvh(tmp_path / "01_01.bvh")
    positions, _ = found.forward()
    for frame in range(4):
        for name, place in bvh_positions(values[frame], order).items():
            np.testing.assert_allclose(positions[frame, found.names.index(name)], place, atol=1e-4)
    assert "LeftToeBase_end" in found.names


def angle(a, b):
    a, b = (
        a / np.linalg.norm(a, axis=-1, keepdims=True),
        b / np.linalg.norm(b, axis=-1, keepdims=True),
    )
    return np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))


def limb_directions(found, joint_map):
    positions, _ = found.forward()
    at = lambda name: positions[:, found.names.index(name)]
    return {name: at(end) - at(start) for name, (start, end) in joint_map.limbs.items()}


def free_body_joints(local):
    """Joints (N, 24, 3) of the free body in poses (N, 24, 3, 3)."""
    rest = np.asarray(load_body("lite").joint_template, np.float64)
    offsets = rest - np.concatenate([rest[:1], rest[list(SMPL24_PARENTS[1:])]])
    return skeleton.SkeletonMotion(
        SMPL24, SMPL24_PARENTS, offsets, local, np.tile(rest[0], (len(local), 1))
    ).forward()[0]


def check_limbs(found, joint_map):
    """The limbs of SMPL point where the source's do: exactly by SMPL's rest directions, within a
    few degrees on the free body."""
    poses = retarget.to_smpl(found, joint_map, "test")
    local = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    world = local.copy()
    for j in range(1, 24):
        world[:, j] = world[:, SMPL24_PARENTS[j]] @ local[:, j]
    joints = free_body_joints(local)
    ends = {"hip": "knee", "knee": "ankle", "shoulder": "elbow", "elbow": "wrist"}
    for name, wanted in limb_directions(found, joint_map).items():
        side, part = name.split("_")
        j, end = SMPL24.index(name), SMPL24.index(f"{side}_{ends[part]}")
        assert angle(world[:, j] @ np.array(retarget.REST_LIMBS[name]), wanted).max() < 0.01, name
        assert angle(joints[:, end] - joints[:, j], wanted).max() < 7, name
    return local, world


def test_asf_limbs_point_where_they_should(amc):
    found, values = amc
    local, world = check_limbs(found, cmu_mocap.ASF)
    pelvis = Rotation.from_euler("xyz", values["root"][:, 3:], degrees=True).as_matrix()
    np.testing.assert_allclose(local[:, 0], pelvis, atol=1e-6)
    head = SMPL24.index("head")
    np.testing.assert_allclose(
        world[:, head], found.forward()[1][:, found.names.index("head")], atol=1e-6
    )


def test_bvh_limbs_point_where_they_should(tmp_path):
    values = pose_fixtures.bvh_values(np.random.default_rng(5), 6)
    (tmp_path / "a.bvh").write_text(pose_fixtures.bvh_text(values))
    check_limbs(bvh.read_bvh(tmp_path / "a.bvh"), cmu_mocap.MOTION_BUILDER)


def test_a_bent_knee_bends_the_knee_alone(tmp_path):
    """By hand: the asf skeleton at rest but for the left knee, bent by 40 degrees: SMPL's shin
    points back by as much."""
    values = {
        name: np.zeros_like(rows)
        for name, rows in pose_fixtures.amc_values(np.random.default_rng(0), 1).items()
    }
    rest = values | {}
    values["ltibia"] = np.array([[40.0]])
    (tmp_path / "01.asf").write_text(pose_fixtures.asf_text())
    bones, poses = asf.read_asf(tmp_path / "01.asf"), []
    for number, numbers in enumerate((rest, values)):
        (tmp_path / f"{number}.amc").write_text(pose_fixtures.amc_text(numbers))
        poses.append(
            retarget.to_smpl(
                asf.read_amc(tmp_path / f"{number}.amc", bones), cmu_mocap.ASF, "test"
            )[0].reshape(24, 3)
        )
    changed = np.flatnonzero(np.abs(poses[1] - poses[0]).max(1) > 1e-6)
    assert [SMPL24[j] for j in changed] == ["left_knee"]
    turn = (Rotation.from_rotvec(poses[0][4]).inv() * Rotation.from_rotvec(poses[1][4])).magnitude()
    np.testing.assert_allclose(np.degrees(turn), 40, atol=1e-4)
    joints = free_body_joints(Rotation.from_rotvec(poses[1]).as_matrix()[None])[0]
    assert joints[7, 2] < joints[4, 2] - 0.2  # the ankle is behind the knee
    assert (
        np.degrees(np.linalg.norm(poses[0], axis=1)).max() < 30
    )  # at rest only the splayed legs and the level arms differ


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t.replace("axis XYZ", "axis ZYX"), "the axis order is ZYX"),
        (lambda t: t.replace("angle deg", "angle rad"), "angles are in rad"),
        (lambda t: t.replace("    lfemur ltibia\n", ""), "outside of one tree: ltibia"),
        (lambda t: t.replace("ltoes", "root"), "outside of one tree: root"),
        (lambda t: t.replace("    lfoot ltoes\n", "    lfoot ltoes root\n"), "tree: root"),
        (lambda t: t.replace("length 7.5", "length long"), "line .* cannot be read"),
        (lambda t: t.replace("dof rx ry rz", "dof rx ry rz l"), "may turn"),
        (
            lambda t: t.replace("name lhumerus", "name larm").replace("lhumerus", "larm"),
            "the skeleton has no lhumerus",
        ),
    ],
)
def test_bad_asf(tmp_path, spoil, message):
    pose_fixtures.write("cmu_asf", tmp_path)
    file = tmp_path / "cmu_asf/all_asfamc/subjects/01/01.asf"
    file.write_text(spoil(file.read_text()))
    for motion_file in file.parent.glob("*.amc"):
        motion_file.write_text(
            motion_file.read_text().replace("lhumerus", "larm")
            if "lhumerus" in message
            else motion_file.read_text()
        )
    with pytest.raises(InputError, match=message) as error:
        records("cmu_asf", tmp_path, "train")
    assert "cmu_asf: " in str(error.value) and "/01" in str(error.value)


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t[: len(t) // 2].rpartition("rhumerus")[0], "has no .*rhumerus"),
        (lambda t: t.replace(":DEGREES", ":RADIANS"), "radians"),
        (lambda t: "\n".join(t.splitlines()[:3]), "empty sequence"),
        (lambda t: t.replace("ltibia ", "ltibia 1 "), "ltibia with 2 numbers does not belong here"),
        (lambda t: t.replace("ltibia ", "lclavicula "), "lclavicula"),
        (lambda t: t.replace("\n3\n", "\n3\nlhipjoint\n"), "lhipjoint with 0 numbers"),
        (lambda t: t.replace("ltibia ", "ltibia nan #", 1), "not finite, or far too large"),
        (lambda t: t.replace("ltibia ", "ltibia 1e300 #", 1), "not finite, or far too large"),
    ],
)
def test_bad_amc(tmp_path, spoil, message):
    pose_fixtures.write("cmu_asf", tmp_path)
    file = tmp_path / "cmu_asf/all_asfamc/subjects/01/01_02.amc"
    file.write_text(spoil(file.read_text()))
    with pytest.raises(InputError, match=message):
        records("cmu_asf", tmp_path, "train")
    rest, report = records("cmu_asf", tmp_path, "train", skip_bad=True)
    assert {record["sequence"] for record in rest} == {"CMU/01/01_01"} and len(report.listed) == 1


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda t: t[: t.index("MOTION")], "has no MOTION"),
        (lambda t: t[:-30], "perhaps cut off"),
        (lambda t: t.rstrip().rpartition("\n")[0], "has 39 frames, but its header has 40"),
        (lambda t: t.replace("CHANNELS 3", "CHANNELS 4", 1), "cannot be read"),
        (lambda t: t.replace("Frames: 40", "Frames: many"), "Frames: and Frame Time: are missing"),
        (lambda t: t[: t.index("Frame Time:")] + "Frame Time: .0083\n", "empty sequence"),
        (lambda t: t.replace("LeftUpLeg", "LeftThigh"), "has no LeftUpLeg"),
        (lambda t: t.replace("OFFSET 2.44000", "OFFSET nan"), "not finite, or far too large"),
        (
            lambda t: t.replace("OFFSET 2.44000 -6.70000", "OFFSET 0 0"),
            "the limb LeftUpLeg-LeftLeg has no length",
        ),
    ],
)
def test_bad_bvh(tmp_path, spoil, message):
    pose_fixtures.write("cmu_bvh", tmp_path)
    file = tmp_path / "cmu_bvh/01/01_01.bvh"
    file.write_text(spoil(file.read_text()))
    with pytest.raises(InputError, match=message) as error:
        records("cmu_bvh", tmp_path, "train")
    assert "01_01.bvh" in str(error.value)


def test_daz_names_are_read_as_well(tmp_path):
    names = {
        "Hips": "hip",
        "LowerBack": "abdomen",
        "Spine1": "chest",
        "Neck1": "neck",
        "Head": "head",
    }
    names |= {
        "LeftUpLeg": "lThigh",
        "LeftLeg": "lShin",
        "LeftFoot": "lFoot",
        "LeftShoulder": "lCollar",
        "LeftArm": "lShldr",
    }
    names |= {"LeftForeArm": "lForeArm", "LeftHand": "lHand"}
    names |= {
        source.replace("Left", "Right"): "r" + name[1:]
        for source, name in names.items()
        if source.startswith("Left")
    }
    values = pose_fixtures.bvh_values(np.random.default_rng(6), 3)
    (tmp_path / "a.bvh").write_text(pose_fixtures.bvh_text(values))
    found = bvh.read_bvh(tmp_path / "a.bvh")
    renamed = dataclasses.replace(found, names=tuple(names.get(name, name) for name in found.names))
    check_limbs(renamed, cmu_mocap.DAZ)
