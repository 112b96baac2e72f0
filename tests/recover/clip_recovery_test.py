"""Clips: interrupted and resumed passes, gaps, people who are missing, and files.

The detector and the system are made up, the refinements and everything else are real.
"""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from PIL import Image
from smpl_jax import rotations

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.motion_refinement import MotionSpec
from genhmr_jax.core.refinement import RefineSpec
from genhmr_jax.core.system import Latents
from genhmr_jax.data.annotations.clip_masks import ClipMasks
from genhmr_jax.detect.detections import Detections
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera, crop_around
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_bounds, keypoint_model, project_body
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72
from genhmr_jax.geometry.motion import ABSENT, FILLED, OBSERVED
from genhmr_jax.geometry.stature import stature
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.video import Frame, FrameSource
from genhmr_jax.recover import clip_frames, clip_person
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.clip_command import summary
from genhmr_jax.recover.clip_frames import FrameTables, observe
from genhmr_jax.recover.clip_recovery import ClipOptions, recover_clip, settle
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

RATE, COUNT, WIDTH, HEIGHT = 5, 14, 256, 160
BODY = load_body("lite")
OPTIONS = ClipOptions(
    photo=RecoverOptions(refine_steps=1), motion=MotionSpec(steps=2), search_interval=3 / RATE
)
SHORT_GAP, LONG_GAP = [3], range(6, 9)
"""Frames without the second person."""


@dataclasses.dataclass(frozen=True)
class FakeSystem:
    """Its answer is the mean pose, with small turns that depend on the keypoints."""

    kind: str = "fake"
    contexts: tuple[str, ...] = ("all",)
    needs_box: bool = False
    refinement: RefineSpec = RefineSpec()
    pose_parts: tuple = tuple(((joint,), (joint,)) for joint in range(24))

    def prepare(self, image, people, photo, rows):
        keypoints = people.padded(rows).keypoints
        view = photo.of_crops(crop_around(keypoints[..., :2], keypoints[..., 2]))
        return Inputs(view=view, keypoints=keypoints)

    def encode(self, params, inputs):
        return inputs

    def sample(self, params, body, encoded, keys, *, iterations, temperature, hypotheses=1):
        middle = encoded.view.to_crop(encoded.keypoints[..., :2])
        turns = 0.1 * jnp.sin(jnp.arange(72) + 20 * jnp.sum(middle, (1, 2))[:, None])
        rows = len(turns)
        weak = jnp.tile(jnp.array([0.8, 0.0, 0.2]), (rows, 1))
        tokens = jnp.zeros((rows, 0), jnp.int32)
        return Latents(turns.reshape(rows, 24, 3), 0.1 * turns[:, :10], weak, tokens)

    def default_iterations(self, hypotheses):
        return 1

    def pose(self, params, view):
        mean = rotations.axis_angle_to_matrix(jnp.asarray(MEAN_POSE_72).reshape(24, 3))
        return lambda embeddings: rotations.axis_angle_to_matrix(embeddings) @ mean

    def confidence(self, params, latents, body, rotmats, keys):
        return jnp.full(rotmats.shape[:2], 0.7)


RECOVERER = Recoverer(FakeSystem(), {"nothing": np.zeros(1, np.float32)}, BODY)
RECOVERER.__dict__["surface"] = keypoint_model(BODY)  # without a silhouette these are enough


def standing() -> np.ndarray:
    """(23, 2) keypoints of a person of 100 px, in the middle of the picture."""
    view = CropCamera(np.float32([[128, 80, 110]]), np.float32([300]), np.float32([[128, 80]]))
    mean = rotations.axis_angle_to_matrix(jnp.asarray(MEAN_POSE_72).reshape(1, 24, 3))
    weak = jnp.array([[0.9, 0, 0.2]])
    points, _ = jax.jit(project_body)(keypoint_model(BODY), mean, np.zeros(10), weak, view)
    return np.asarray(points[0])


STANDING = standing()
SCENE = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)).resize(
        (640, 320), Image.Resampling.BICUBIC
    )
)


class FakeDetector:
    """In the place of ClipDetector: the top left pixel tells the frame.

    The result depends on the state as that of ClipDetector: on the frame before and on the search.
    """

    def __init__(self, every, max_people):
        self.every, self.since_search = every, 0

    def detect(self, pixels, previous=None):
        frame = int(pixels[0, 0, 0])
        self.since_search = (self.since_search + 1) % self.every
        columns = [-60]
        if frame not in SHORT_GAP and frame not in LONG_GAP:
            columns.append(40)
        if frame == 12:
            columns.append(90)  # too short to count
        found = Detections.empty(len(columns) if frame != 255 else 0)
        for person, column in enumerate(columns[: len(found)]):
            found.keypoints[person, :, :2] = STANDING + [column + 0.5 * frame, 0]
            if previous is not None and len(previous):
                found.keypoints[person, :, 0] += 0.01 * previous.keypoints[0, 0, 0]
            found.keypoints[person, :, 1] += 0.3 * self.since_search
            found.keypoints[person, :, 2] = 0.9
            found.scores[person] = 0.8
        found.boxes[:] = keypoint_bounds(found.keypoints)
        return found


class Pictures(FrameSource):
    """A clip in memory.

    Args:
      numbers: what the detector is told about each frame.
      stop: the frame at which the user interrupts.
      lost: frames that cannot be decoded.
      pan: px a frame by which the camera moves.
      cut: the first frame of a second shot, of another place.
    """

    def __init__(self, numbers=range(COUNT), stop=None, lost=(), pan=0, cut=COUNT):
        self.numbers, self.stop, self.lost, self.pan = list(numbers), stop, lost, pan
        self.cut = cut
        chosen = types.SimpleNamespace(among=lambda times: np.arange(len(times)))
        super().__init__((WIDTH, HEIGHT), RATE, np.arange(len(self.numbers)) / RATE, chosen)

    def frames(self, first=0):
        for index in range(first, self.count):
            if index == self.stop:
                raise KeyboardInterrupt
            if index not in self.lost:
                x = 10 + self.pan * index
                pixels = SCENE[40 : 40 + HEIGHT, x : x + WIDTH].copy()
                if index >= self.cut:
                    pixels = 255 - pixels[::-1]
                pixels[0, 0] = self.numbers[index]
                yield Frame(index, float(self.times[index]), pixels)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Short chunks and windows, so that a short clip has several."""
    monkeypatch.setattr(clip_frames, "ClipDetector", FakeDetector)
    monkeypatch.setattr(clip_frames, "CHUNK", 4)
    monkeypatch.setattr(clip_person, "WINDOW", 8)
    monkeypatch.setattr(clip_person, "CONTEXT", 2)


def recover(source, tables=None, options=OPTIONS):
    return recover_clip(source, RECOVERER, options, body_model="lite", tables=tables)


def watch(source, tables):
    """The first pass alone."""
    return observe(source, RECOVERER, OPTIONS.photo, tables, search_every=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A clip that was not interrupted, and its tables."""
    with pytest.MonkeyPatch.context() as patch:
        small.__wrapped__(patch)
        tables = FrameTables.make(tmp_path_factory.mktemp("whole"), {})
        return recover(Pictures(), tables), tables


def check_equal(found, wanted):
    assert found.arrays().keys() == wanted.arrays().keys()
    for name, value in wanted.arrays().items():
        if value.dtype.kind == "f":
            np.testing.assert_allclose(getattr(found, name), value, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)


def test_gaps_and_people(whole):
    """The second person has a short gap, which is filled, and a long one; the third one is seen
    too shortly."""
    clip, _ = whole
    assert clip.track_id.tolist() == [1, 2] and len(clip.times) == COUNT
    assert clip.mask_label.tolist() == [0, 0]
    assert (clip.state[0] == OBSERVED).all()
    wanted = np.full(COUNT, OBSERVED)
    wanted[list(SHORT_GAP)], wanted[list(LONG_GAP)] = FILLED, ABSENT
    assert clip.state[1].tolist() == wanted.tolist()
    away, seen = wanted == ABSENT, wanted == OBSERVED
    for name in ("joints", "translation", "body_pose", "joint_confidence"):
        value = getattr(clip, name)[1]
        assert not value[away].any() and value[~away].any(tuple(range(1, value.ndim))).all(), name
    assert not clip.keypoints2d[1, ~seen].any() and clip.keypoints2d[1, seen].any((1, 2)).all()
    # The filled frame is between its neighbours; the poses of single frames are random.
    path = clip.joints[1, 2:5, 0]
    np.testing.assert_allclose(path[1], (path[0] + path[2]) / 2, atol=0.06)


def test_the_numbers_agree(whole):
    clip, _ = whole
    assert clip.frame_index.tolist() == list(range(COUNT)) and clip.image_size.tolist() == [
        256,
        160,
    ]
    np.testing.assert_allclose(clip.times, np.arange(COUNT) / RATE)
    known = clip.state != ABSENT
    projected = clip.focal_length * clip.joints[..., :2] / np.maximum(clip.joints[..., 2:], 0.1)
    projected += clip.principal_point
    np.testing.assert_allclose(clip.joints2d[known], projected[known], atol=0.05)
    # The parameters give the joints, and these the detected keypoints.
    pose = np.concatenate([clip.global_orient, clip.body_pose], -1)[0]
    output = smpl_jax.posed_joints(BODY, clip.betas[0], rotations.axis_angle_to_matrix(
        jnp.asarray(pose).reshape(-1, 24, 3)))  # fmt: skip
    np.testing.assert_allclose(
        np.asarray(output) + clip.translation[0][:, None], clip.joints[0], atol=1e-3
    )
    gap = np.linalg.norm(clip.projected_keypoints - clip.keypoints2d[..., :2], axis=-1)
    assert gap[clip.state == OBSERVED].mean() < 3


def test_a_static_camera_has_a_world(whole):
    """People who stand upright: their feet are on the ground, their heads are above it."""
    clip, _ = whole
    assert not clip.camera_moves
    to_world = lambda points: points @ clip.world_rotation.T + clip.world_translation
    joints = to_world(clip.joints[0])
    assert abs(np.median(joints[:, [10, 11], 1])) < 0.1 and 1.2 < joints[:, 15, 1].mean() < 2.0
    assert clip.foot_contact[0].mean() > 0.5


def test_a_moving_camera_has_none():
    clip = recover(Pictures(range(8), pan=3))
    assert clip.camera_moves and clip.world_rotation is None and clip.foot_contact is None


def test_nobody_is_followed_over_a_cut(tmp_path):
    """The same person at the same place in two shots is two people."""
    cut = 8
    clip = recover(Pictures(cut=cut), FrameTables.make(tmp_path / "whole", {}))
    assert clip.shot.tolist() == [0] * cut + [1] * (COUNT - cut)
    assert clip.track_id.tolist() == [1, 2, 3, 4]
    before, after = clip.state[:, :cut] != ABSENT, clip.state[:, cut:] != ABSENT
    assert (before.any(1) != after.any(1)).all() and before.any(1).sum() == 2
    assert clip.camera_moves and clip.world_rotation is None
    assert "2 shots; no world coordinates, because there are cuts" in summary(clip)
    # A pass that was interrupted right before the cut finds it, too.
    assert not watch(Pictures(cut=cut, stop=9), FrameTables.make(tmp_path / "part", {}))
    tables = FrameTables.resume(tmp_path / "part", {})
    assert len(tables.frames) == cut
    check_equal(recover(Pictures(cut=cut), tables), clip)


def test_an_interrupted_pass_is_resumed(whole, tmp_path):
    """The state of the detector, of the frame before and of the camera's motion is the same."""
    identity = {"of": ["a clip", 1]}
    done = 8
    part = recover(Pictures(stop=9), FrameTables.make(tmp_path, identity))
    assert len(part.times) == done and (part.state[0] == OBSERVED).all()
    tables = FrameTables.resume(tmp_path, identity)
    # A row of an interrupted append to the second table.
    tables.people.append({name: value[-1:] for name, value in tables.people.read().items()})
    tables = FrameTables.resume(tmp_path, identity)
    assert len(tables.frames) == done
    seen = []
    found = recover_clip(
        Pictures(), RECOVERER, OPTIONS, body_model="lite", tables=tables,
        progress=lambda frames, people: seen.append(frames),
    )  # fmt: skip
    assert sum(seen) == COUNT - done
    check_equal(found, whole[0])
    np.testing.assert_array_equal(tables.frames.read()["shift"], whole[1].frames.read()["shift"])
    # All is done: a further pass reads nothing.
    assert watch(Pictures(stop=0), FrameTables.resume(tmp_path, identity))


def test_a_clip_with_frames_that_cannot_be_decoded_is_resumed(tmp_path):
    lost = (1, 2, 7)
    whole = FrameTables.make(tmp_path / "whole", {})
    assert watch(Pictures(lost=lost), whole)
    assert whole.frames.read()["index"].tolist() == [i for i in range(COUNT) if i not in lost]
    assert not watch(Pictures(lost=lost, stop=12), FrameTables.make(tmp_path / "part", {}))
    tables = FrameTables.resume(tmp_path / "part", {})
    assert len(tables.frames) == 8 and watch(Pictures(lost=lost), tables)
    for table in ("frames", "people"):
        found, wanted = (getattr(each, table).read() for each in (tables, whole))
        for name, value in wanted.items():
            np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_an_interruption_before_anything_is_known(tmp_path):
    tables = FrameTables.make(tmp_path, {})
    with pytest.raises(KeyboardInterrupt):
        recover(Pictures(stop=2), tables)
    with pytest.raises(InputError, match="no frame of it can be read"):
        recover(Pictures(lost=range(COUNT)), tables)


def test_tables_of_another_clip(whole, tmp_path):
    watch(Pictures(stop=6), FrameTables.make(tmp_path, {"of": "a clip"}))
    with pytest.raises(InputError, match="made from another clip, or with other options"):
        FrameTables.resume(tmp_path, {"of": "another clip"})
    assert len(FrameTables.resume(tmp_path, {"of": "a clip"}).frames) == 4
    # Without tables there is nothing to resume.
    assert len(FrameTables.resume(tmp_path / "new", {}).frames) == 0


def test_people_of_a_given_height(whole):
    _, tables = whole
    options = dataclasses.replace(OPTIONS, height=1.9)
    found = settle(tables, RECOVERER, options, (WIDTH, HEIGHT))
    for betas in found.betas:
        assert stature(BODY, betas) == pytest.approx(1.9, abs=1e-3)
    assert found.translation[0, :, 2].mean() > whole[0].translation[0, :, 2].mean()
    with pytest.raises(InputError, match="9 metres is no height"):
        ClipOptions(height=9)


def test_masks_say_who_is_meant(tmp_path, monkeypatch):
    """One of the two people has masks, in most frames; the label is the identity over a cut."""
    folder, label = tmp_path / "masks", 9
    folder.mkdir()
    for frame in set(range(COUNT)) - {4}:
        labels = np.zeros((HEIGHT, WIDTH), np.uint8)
        labels[20:150, 60 : 100 + frame] = label
        Image.fromarray(labels).save(folder / f"{frame:05d}.png")
    looked = []

    def detect(pixels, boxes):
        looked.append(boxes)
        found = FakeDetector(1, None).detect(pixels).only(np.arange(len(boxes)))
        return dataclasses.replace(found, given=np.arange(len(boxes)))

    monkeypatch.setattr(clip_frames, "detect", detect)
    masks = ClipMasks(folder, None, COUNT)
    cut = 8
    clip = recover_clip(Pictures(cut=cut), RECOVERER, OPTIONS, body_model="lite", masks=masks)
    assert clip.mask_label.tolist() == [label, label] and clip.track_id.tolist() == [1, 2]
    assert [len(boxes) for boxes in looked] == [1] * 4 + [0] + [1] * (COUNT - 5)
    wanted = np.full((2, COUNT), ABSENT)
    wanted[0, :cut], wanted[0, 4], wanted[1, cut:] = OBSERVED, FILLED, OBSERVED
    assert clip.state.tolist() == wanted.tolist()


def test_nobody(tmp_path):
    clip = recover(Pictures([255] * 6))
    assert len(clip) == 0 and clip.joints.shape == (0, 6, 24, 3) and not clip.camera_moves
    assert clip.keypoints2d.shape == (0, 6, len(DETECTED), 3) and clip.world_rotation is None
    clip.save(tmp_path / "clip.npz")
    check_equal(Clip.load(tmp_path / "clip.npz"), clip)


def test_one_frame():
    """It is shorter than the shortest track, and counts."""
    clip = recover(Pictures([0]))
    assert clip.state.tolist() == [[OBSERVED], [OBSERVED]]
    assert np.isfinite(clip.joints).all()


def test_a_clip_is_saved_and_read(whole, tmp_path):
    whole[0].save(tmp_path / "clip.npz")
    check_equal(Clip.load(tmp_path / "clip.npz"), whole[0])


def test_several_hypotheses_are_refused():
    with pytest.raises(ValueError, match="one hypothesis"):
        ClipOptions(photo=RecoverOptions(hypotheses=4))
