"""The benchmark of clips: its figures for made-up answers, and its test set on disk."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.cli import evaluate, main
from genhmr_jax.data.synthetic.clips import ClipSpec
from genhmr_jax.data.synthetic.motions import Sequence
from genhmr_jax.evaluate import clip_metrics, clip_split, clips
from genhmr_jax.evaluate.clip_split import KnownClip, open_clips, windows
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.geometry.motion import ABSENT, FILLED, OBSERVED
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.clip import Clip

FRAMES, RATE = 30, 30.0


@pytest.fixture
def truth(tmp_path) -> KnownClip:
    """A person at random joints who walks along x, 4 m away."""
    rng = np.random.default_rng(0)
    joints = np.tile(rng.normal(0, 0.4, (24, 3)), (FRAMES, 1, 1)) + [0, 0, 4]
    joints[..., 0] += 0.02 * np.arange(FRAMES)[:, None]
    points = 500 * joints[:, : len(DETECTED), :2] / joints[:, : len(DETECTED), 2:] + [240, 180]
    return KnownClip(
        name="made up",
        start=0.0,
        folder=tmp_path,
        mean_pixel=0.0,
        times=np.arange(FRAMES) / RATE,
        global_orient=np.tile(np.float32([np.pi, 0, 0]), (FRAMES, 1)),
        body_pose=np.zeros((FRAMES, 69)),
        betas=np.zeros(10),
        translation=np.zeros((FRAMES, 3)),
        joints=joints,
        keypoints=np.concatenate([points, np.ones((FRAMES, len(DETECTED), 1))], -1),
        focal=500.0,
        occluded=False,
    )


def answered(truth: KnownClip, people: int = 1, **changes: np.ndarray) -> Clip:
    """A Clip of people who are all the true one; `changes` replaces fields."""
    tile = lambda array: np.tile(array, (people, *[1] * np.ndim(array)))
    fields = {
        "frame_index": np.arange(FRAMES),
        "times": truth.times,
        "shot": np.zeros(FRAMES),
        "image_size": [480, 360],
        "focal_length": truth.focal,
        "principal_point": [240, 180],
        "body_model": "made up",
        "track_id": np.arange(people) + 1,
        "mask_label": np.zeros(people),
        "state": np.full((people, FRAMES), OBSERVED),
        "boxes": np.zeros((people, FRAMES, 4)),
        "keypoints2d": tile(truth.keypoints),
        "keypoint_names": DETECTED,
        "betas": tile(truth.betas),
        "global_orient": tile(truth.global_orient),
        "body_pose": tile(truth.body_pose),
        "translation": tile(truth.translation),
        "joints": tile(truth.joints),
        "joints2d": np.zeros((people, FRAMES, 24, 2)),
        "joint_confidence": np.ones((people, FRAMES, 24)),
        "joint_names": [f"joint {i}" for i in range(24)],
        "projected_keypoints": np.zeros((people, FRAMES, len(DETECTED), 2)),
        "camera_moves": False,
        "frame_global_orient": tile(truth.global_orient),
        "frame_body_pose": tile(truth.body_pose),
        "frame_translation": tile(truth.translation),
        "frame_joints": tile(truth.joints),
    }
    arrays = {name: np.asarray(value) for name, value in (fields | changes).items()}
    return Clip(**arrays)


def rows_of(clip: Clip, truth: KnownClip) -> dict:
    return clips.summary([clips.compare(clip, truth)])["results"]


def test_errors_by_hand(truth):
    """The track is 0.3 m too deep. In single frames one joint trembles by 1 cm, and every other
    pelvis with all its joints by 2 cm."""
    sign = np.where(np.arange(FRAMES) % 2, 1.0, -1.0)
    trembling = truth.joints.copy()
    trembling[:, 5, 1] += 0.01 * sign
    trembling[..., 2] += 0.02 * sign[:, None]
    deep = truth.joints + [0, 0, 0.3]
    rows = rows_of(answered(truth, joints=deep[None], frame_joints=trembling[None]), truth)
    one, track = rows[clips.FRAMES], rows[clips.SAME]
    # Second differences of -a, a, -a are 4 a.
    assert one["mpjpe_mm"] == pytest.approx(10 / 24, rel=1e-3)
    assert one["accel_error"] == pytest.approx(4 * 0.01 * RATE**2 / 24, rel=1e-3)
    assert one["accel"] == pytest.approx(one["accel_error"], rel=1e-3)
    assert one["pelvis_accel_error"] == pytest.approx(4 * 0.02 * RATE**2, rel=1e-3)
    assert one["position_m"] == pytest.approx(0.02, rel=1e-3)
    assert track["mpjpe_mm"] == pytest.approx(0, abs=1e-3) and track["found"] == 1
    assert track["accel_error"] == pytest.approx(0, abs=2e-3)
    assert track["pelvis_accel_error"] == pytest.approx(0, abs=2e-3)
    assert track["position_m"] == pytest.approx(0.3, rel=1e-4)
    near = 500 * truth.joints[..., :2] / truth.joints[..., 2:]
    far = 500 * truth.joints[..., :2] / (truth.joints[..., 2:] + 0.3)
    expected = np.linalg.norm(near - far, axis=-1).mean()
    assert track["joints_px"] == pytest.approx(expected, rel=1e-4)


def test_missing_and_filled_frames(truth):
    """Errors are of found frames; filled ones count only for the track as a whole. A gap gives no
    acceleration."""
    state = np.full((1, FRAMES), OBSERVED)
    state[0, 10:16], state[0, 20:] = FILLED, ABSENT
    joints = truth.joints.copy()
    joints[10:16, 7] += [0.24, 0, 0]  # 10 mm in the mean
    joints[20:] = 0
    clip = answered(truth, state=state, joints=joints[None], frame_joints=joints[None])
    rows = rows_of(clip, truth)
    assert [rows[row]["found"] for row in rows] == pytest.approx([14 / 30, 14 / 30, 20 / 30])
    assert rows[clips.SAME]["mpjpe_mm"] == pytest.approx(0, abs=1e-3)
    assert rows[clips.TRACK]["mpjpe_mm"] == pytest.approx(10 * 6 / 20, rel=1e-3)
    assert rows[clips.FRAMES]["accel_error"] == pytest.approx(0, abs=2e-3)
    assert rows[clips.TRACK]["accel_error"] > 1


def test_flips(truth):
    """Short runs back to front are flips, long ones are not; the gap in a run is passed over."""
    turned = np.zeros(FRAMES, bool)
    turned[[0, 5, 6, 28, 29]] = True
    turned[10:21] = True
    known = np.ones(FRAMES, bool)
    assert clip_metrics.flips(turned, known) == 3
    known[12:16] = False  # the long run has 7 known frames
    assert clip_metrics.flips(turned, known) == 4
    assert clip_metrics.flips(np.ones(4, bool), np.ones(4, bool)) == 0

    half = Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_euler("y", np.pi)
    roots = truth.global_orient.copy()
    roots[7:9] = half.as_rotvec()
    rows = rows_of(answered(truth, frame_global_orient=roots[None]), truth)
    assert rows[clips.FRAMES]["flips"] == 1 and rows[clips.SAME]["flips"] == 0
    assert rows[clips.FRAMES]["back_to_front"] == pytest.approx(2 / 30)


def test_the_track_of_the_person(truth):
    """The first track is elsewhere; the person has one from frame 8 on, and another one before."""
    state = np.full((3, FRAMES), OBSERVED)
    state[1, 8:], state[2, :8] = ABSENT, ABSENT
    keypoints = np.tile(truth.keypoints, (3, 1, 1, 1))
    keypoints[0, ..., 0] += 1000
    clip = answered(truth, 3, state=state, keypoints2d=keypoints)
    assert clip_metrics.matched_frames(clip, truth).tolist() == [0, 8, 22]
    report = clips.summary([clips.compare(clip, truth)])
    assert report["tracks"] == 3 and report["identity_breaks"] == 1
    assert report["results"][clips.TRACK]["found"] == pytest.approx(22 / 30)

    lost = clips.compare(answered(truth, 1, keypoints2d=keypoints[:1]), truth)
    report = clips.summary([lost, clips.compare(clip, truth)])
    assert report["results"][clips.TRACK]["found"] == pytest.approx(11 / 30)
    assert report["clips"][0][clips.TRACK] == {"found": 0.0}
    assert report["improvement"]["accel_error"]["clips"] == 1


def test_windows_do_not_overlap_and_subjects_take_turns():
    times = lambda seconds: np.array([0.0, seconds])
    make = lambda name, subject, seconds: Sequence(
        name, subject, np.zeros((2, 24, 3)), times(seconds)
    )
    motions = [make("a1", "a", 10), make("a2", "a", 7), make("b1", "b", 4), make("b2", "b", 2)]
    parts = list(windows(motions, 3.0, 5))
    assert [part.subject for part, _ in parts] == ["a", "b", "a", "a", "a", "a"]
    for motion in motions[:3]:
        starts = np.sort([start for part, start in parts if part.name == motion.name])
        assert (np.diff(starts) >= 3).all() and starts.min() >= 0
        assert starts.max() + 3 <= motion.seconds
    assert [start for _, start in windows(motions, 3.0, 6)] != [start for _, start in parts]


@pytest.fixture(scope="module")
def motions(tmp_path_factory):
    """A corpus of one motion of 2 s for validation."""
    rng, path = np.random.default_rng(1), tmp_path_factory.mktemp("motions") / "poses.npz"
    poses = np.cumsum(rng.normal(0, 0.01, (60, 72)), 0)
    frame, zeros = np.arange(60), np.zeros(60, int)
    np.savez(path, poses=poses, frame=frame, seq_id=zeros, split=zeros + 1, mocap_framerate=30.0)
    return path


@pytest.fixture(scope="module")
def small(motions, tmp_path_factory):
    """The set with two clips of six small frames."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_split, "SECONDS", 0.6)
        patch.setattr(clip_split, "SPEC", ClipSpec(width=64, height=48, rate=10.0))
        folder = tmp_path_factory.mktemp("clips")
        yield folder, open_clips(folder, motions, 2)


def test_the_set_is_the_same_when_it_is_opened_again(small, motions, tmp_path):
    folder, split = small
    assert split.facts["count"] == 2 and [clip.occluded for clip in split.clips] == [False, True]
    assert open_clips(folder, None, 2).facts == split.facts
    split.clips[1].folder.with_suffix(".npz").unlink()  # as if it had been interrupted
    assert open_clips(folder, motions, 2).facts == split.facts
    first = open_clips(tmp_path, motions, 1)
    np.testing.assert_array_equal(first.clips[0].joints, split.clips[0].joints)
    for frame in range(6):
        name = f"{frame:04d}.jpg"
        pictures = [(clip.folder / name).read_bytes() for clip in (first.clips[0], split.clips[0])]
        assert pictures[0] == pictures[1]
    clip = dataclasses.replace(split.clips[1], start=split.clips[1].start + 0.01)
    assert clip_split.clips_hash([split.clips[0], clip]) != split.facts["hash"]


def test_wrong_sets_are_named(small, motions, tmp_path):
    folder, _ = small
    with pytest.raises(InputError, match="lacks 1 of 1 clips"):
        open_clips(tmp_path, None, 1)
    with pytest.raises(InputError, match="has only 3 motions of 0.6 s"):
        open_clips(folder, motions, 4)
    home = tmp_path / folder.joinpath("clips-test-v1").name
    open_clips(tmp_path, motions, 1)
    (home / "clip_00" / "0003.jpg").unlink()
    with pytest.raises(InputError, match="does not have as many frames as labels"):
        open_clips(tmp_path, None, 1)
    (home / "clip_00.npz").write_bytes(b"PK damaged")
    with pytest.raises(InputError, match="cannot be read as a file of the labels of a clip"):
        open_clips(tmp_path, None, 1)
    (home / "corpus.txt").write_text("of another one")
    with pytest.raises(InputError, match="was rendered from other motions"):
        open_clips(tmp_path, motions, 1)


def test_the_command(small, monkeypatch, tmp_path, capsys):
    """It prints a table, and writes the figures of each clip; the model gets the focal length only
    with --true-focal."""
    folder, split = small
    focal = []

    def recover(truth, model, options):
        focal.append(options.photo.focal)
        known = {"frame_index": np.arange(6), "state": np.full((1, 6), OBSERVED)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(globals(), "FRAMES", 6)
            return answered(truth, **known)

    monkeypatch.setattr(clips, "recover", recover)
    monkeypatch.setattr(evaluate, "_load", lambda args, body: None)
    out = tmp_path / "eval.json"
    flags = [f"--data-dir={folder}", "--limit=2", f"--out={out}"]
    assert main.main(["eval", "--dataset=clips", *flags, "--true-focal"]) == 0
    text, report = capsys.readouterr().out, json.loads(out.read_text())
    assert f"test clips v1, 2 clips, hash {split.facts['hash']}" in text
    assert "| track, in the same frames | 0.0 | 0.0 |" in text
    assert report["dataset"] == "clips" and len(report["clips"]) == 2
    assert report["results"][clips.TRACK]["found"] == 1
    assert main.main(["eval", "--dataset=clips", *flags]) == 0
    assert focal == [split.clips[0].focal, split.clips[1].focal, None, None]
    assert main.main(["eval", "--dataset=clips", *flags, "--iterations=1,3"]) == 1
    assert "1,3 does not go with clips" in capsys.readouterr().err
