"""Hands on the bodies of a clip: steady fingers and arms, gaps, and files with 52 joints."""

import dataclasses
import types

import jax
import numpy as np
import pytest
import smpl_jax
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPLH52

from genhmr_jax.detect.hands import Hands
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.fingers import full_pose, load_fingers
from genhmr_jax.geometry.motion import ABSENT, OBSERVED
from genhmr_jax.io.video import Frame
from genhmr_jax.recover import view_command
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.clip_hands import with_hands
from genhmr_jax.recover.clip_pictures import vertices_of
from genhmr_jax.recover.hands import PreparedHands
from genhmr_jax.recover.motions import frame_motions_of_clip, motions_of_clip
from genhmr_jax.recover.pages import clip_scene
from genhmr_jax.recover.photo import RecoverOptions
from genhmr_jax.render.export.clip_files import save_clip_files
from support.people_and_hands import BENT, CENTRE, FOCAL, SIZE, hands_of, people_of, project

FRAMES, ABSENT_FROM = 36, 33
SEEN = [f for f in range(4, 20) if f not in (9, 10)]  # frames with hands
FORWARD = jax.jit(smpl_jax.forward)
RIGHT_WRIST = SMPL24.index("right_wrist")


@pytest.fixture(scope="module")
def people():
    pose = np.zeros((1, 24, 3))
    pose[0, 0] = [np.pi, 0, 0]
    pose[0, SMPL24.index("right_elbow")] = [0.1, 0.6, 0.2]
    return people_of(pose)


@pytest.fixture(scope="module")
def clip(people) -> Clip:
    """One person who does not move, seen in all but the last frames."""
    over_time = lambda values: np.repeat(np.asarray(values)[:, None], FRAMES, 1)
    state = np.full((1, FRAMES), OBSERVED)
    state[:, ABSENT_FROM:] = ABSENT
    here = lambda values: np.where(
        (state > 0).reshape(1, FRAMES, *[1] * (values.ndim - 2)), values, 0
    )
    names = people.keypoint_names
    return Clip(
        frame_index=np.arange(FRAMES), times=np.arange(FRAMES) / 30, shot=np.zeros(FRAMES),
        image_size=SIZE, focal_length=FOCAL, principal_point=CENTRE, body_model="neutral",
        track_id=[1], mask_label=[0], state=state, boxes=here(over_time(people.boxes)),
        keypoints2d=here(over_time(people.keypoints2d)), keypoint_names=names, betas=people.betas,
        global_orient=here(over_time(people.global_orient)),
        body_pose=here(over_time(people.body_pose)),
        translation=here(over_time(people.translation)), joints=here(over_time(people.joints)),
        joints2d=here(over_time(people.joints2d)),
        joint_confidence=here(over_time(people.joint_confidence)), joint_names=people.joint_names,
        projected_keypoints=here(over_time(people.projected_keypoints)), camera_moves=False,
        frame_global_orient=here(over_time(people.global_orient)),
        frame_body_pose=here(over_time(people.body_pose)),
        frame_translation=here(over_time(people.translation)),
        frame_joints=here(over_time(people.joints)),
    )  # fmt: skip


class Source:
    """Frames whose first pixel is their number."""

    def frames(self, first=0):
        for number in range(first, FRAMES):
            yield Frame(number, number / 30, np.full((*SIZE[::-1], 3), number, np.uint8))


def turned(people, side, degrees) -> np.ndarray:
    """The orientation of a wrist of the body, bent further."""
    pose = np.concatenate([people.global_orient[0], people.body_pose[0]]).reshape(24, 3)
    turn, joint = np.eye(3), SMPL24.index(f"{side}_wrist")
    while joint >= 0:
        turn = Rotation.from_rotvec(pose[joint]).as_matrix() @ turn
        joint = smpl_jax.keypoints.SMPL24_PARENTS[joint]
    return turn @ Rotation.from_rotvec([0, 0, np.radians(degrees)]).as_matrix()


@pytest.fixture(scope="module")
def model(people):
    """A model that finds the right hand in the frames SEEN, with BENT fingers, bent by 20 degrees.

    `chunks` notes how many hands were solved together.
    """
    chunks = []

    def prepare(pixels, detected, camera):
        assert len(detected) == 1 and camera.focal == FOCAL
        count = int(pixels[0, 0, 0] in SEEN)
        hands = dataclasses.replace(Hands.empty(count), person=np.zeros(count, int))
        return PreparedHands(hands, {"rows": np.zeros((max(count, 1), 2))}, camera, SIZE)

    def recover_prepared(prepared, options):
        count = len(prepared.hands)
        chunks.append(count)
        assert len(prepared.inputs["rows"]) == count
        return hands_of(people, [(0, "right", turned(people, "right", 20))] * count)

    hands = types.SimpleNamespace(recover_prepared=recover_prepared)
    fingers, body = load_fingers("neutral"), load_body("neutral")
    return types.SimpleNamespace(prepare=prepare, hands=hands, fingers=fingers, body=body,
                                 chunks=chunks)  # fmt: skip


@pytest.fixture(scope="module")
def found(clip, model) -> Clip:
    return with_hands(clip, Source(), model, RecoverOptions())


def degrees_between(one, other):
    turns = [Rotation.from_rotvec(np.reshape(x, (-1, 3))) for x in (one, other)]
    return np.degrees((turns[0].inv() * turns[1]).magnitude()).max()


def test_fingers_are_steady_and_fade(found, model):
    """As found in the frames with a hand and in the gap between them; straight far from them."""
    right = found.right_hand_pose[0].reshape(FRAMES, 15, 3)
    assert model.chunks == [14], "the hands of 14 frames at once"
    for frame in (5, 9, 10, 14, 18):
        assert degrees_between(right[frame], BENT) < 3, frame
    assert not right[30].any() and not found.left_hand_pose.any()
    confidence = found.right_hand_confidence[0]
    assert confidence[SEEN].min() > 0.2 and 0 < confidence[22] < confidence[18]
    assert not confidence[30:].any() and not found.left_hand_confidence.any()


def test_the_wrist_follows_the_hand(found, clip, people):
    """Of the body in frames far from any hand; nothing else of the body moves."""
    wanted = Rotation.from_matrix(turned(people, "right", 20))
    poses = np.concatenate([found.global_orient, found.body_pose], -1)[0].reshape(FRAMES, 24, 3)
    before = np.concatenate([clip.global_orient, clip.body_pose], -1)[0].reshape(FRAMES, 24, 3)
    for frame in SEEN[2:-2]:
        turn, joint = Rotation.identity(), RIGHT_WRIST
        while joint >= 0:
            turn = Rotation.from_rotvec(poses[frame, joint]) * turn
            joint = smpl_jax.keypoints.SMPL24_PARENTS[joint]
        assert np.degrees((turn.inv() * wanted).magnitude()) < 3
    np.testing.assert_allclose(poses[30], before[30], atol=1e-5)
    others = [j for j, name in enumerate(SMPL24) if name not in ("right_wrist", "right_elbow")]
    np.testing.assert_allclose(poses[:, others], before[:, others], atol=1e-6)


def test_joints_are_those_of_the_pose(found, model):
    pose = full_pose(found.global_orient, found.body_pose, found.left_hand_pose,
                     found.right_hand_pose)[0].reshape(FRAMES, 52, 3)  # fmt: skip
    for frame in (8, 25):
        output = FORWARD(model.fingers, found.betas[0], pose[frame], found.translation[0, frame])
        np.testing.assert_allclose(found.joints[0, frame, :22], output.joints[:22], atol=1e-5)
        np.testing.assert_allclose(
            found.joints2d[0, frame], project(found.joints[0, frame]), rtol=1e-4
        )
        drawn = vertices_of(found, model.fingers, frame)[0]
        np.testing.assert_allclose(drawn, output.vertices, atol=1e-5)
    for name in ("joints", "right_hand_pose", "projected_keypoints", "body_pose"):
        assert not getattr(found, name)[0, ABSENT_FROM:].any(), name


def test_motions_have_52_joints_on_request(found, model):
    (motion,) = motions_of_clip(found, fingers=True)
    (before,) = frame_motions_of_clip(found, model.fingers, fingers=True)
    assert motion.poses.shape == before.poses.shape == (FRAMES, 52, 3)
    assert motion.confidence.shape == (FRAMES, 52)
    first = SMPLH52.index("right_index1")
    np.testing.assert_array_equal(
        motion.poses[:, 37:].reshape(FRAMES, 45), found.right_hand_pose[0]
    )
    assert motion.confidence[8, first] == found.right_hand_confidence[0, 8]
    assert not before.poses[:, 22:].any() and motions_of_clip(found)[0].poses.shape[1] == 24


def test_a_clip_without_hands_and_one_without_people(clip, model):
    nobody = types.SimpleNamespace(
        prepare=lambda *_: PreparedHands(Hands.empty(), {}, None, SIZE), hands=None,
        fingers=model.fingers, body=model.body,
    )  # fmt: skip
    found = with_hands(clip, Source(), nobody, RecoverOptions())
    np.testing.assert_allclose(found.body_pose, clip.body_pose, atol=1e-6)
    np.testing.assert_allclose(found.joints, clip.joints, atol=1e-4)
    assert not found.right_hand_pose.any() and not found.right_hand_confidence.any()


def test_files_with_fingers(found, model, tmp_path):
    motions = motions_of_clip(found, fingers=True)
    formats = ("glb", "bvh", "amass", "usd", "csv")
    paths = save_clip_files(tmp_path, "a", formats, motions, model.fingers, found)
    glb, bvh, amass, usd, _ = paths
    trimesh = pytest.importorskip("trimesh")
    nodes = trimesh.load(glb, force="scene").graph.nodes
    assert set(SMPLH52) <= set(nodes)
    text = bvh.read_text()
    assert all(f"JOINT {name}\n" in text for name in SMPLH52[1:])
    offsets = [line.split()[1:] for line in text.split("End Site")[1].splitlines()[2:3]]
    ends = [part.splitlines()[2].split()[1:] for part in text.split("End Site")[1:]]
    lengths = np.linalg.norm(np.array(ends, float), axis=-1)
    assert offsets and np.sort(lengths)[:10].max() < 0.04, "the ends of ten fingers, metres"
    stored = np.load(amass)["poses"].reshape(-1, 52, 3)
    np.testing.assert_allclose(stored[:, 37:], motions[0].poses[:ABSENT_FROM, 37:], atol=1e-6)
    assert usd.read_text().count("right_index3") > 0


def test_the_page_and_the_stored_result(found, model, tmp_path):
    path = tmp_path / "a.npz"
    found.save(path)
    again = Clip.load(path)
    np.testing.assert_array_equal(again.right_hand_pose, found.right_hand_pose)
    scene = clip_scene("a", (), again, model.fingers)
    assert len(scene.people[0].body.joints) == 52
    arguments = types.SimpleNamespace(result=str(path), out=str(tmp_path / "a.html"), body=None,
                                      photo=None)  # fmt: skip
    assert view_command.run(arguments) == 0
    assert '"parents": [' in (text := (tmp_path / "a.html").read_text()) or '"parents":[' in text
