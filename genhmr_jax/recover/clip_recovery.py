"""From a clip to its people over time.

frames -> clip_frames.observe -> identities -> clip_person.steady_person -> ground -> Clip
"""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from genhmr_jax.core.assignments import assigned
from genhmr_jax.core.motion_refinement import MotionSpec
from genhmr_jax.data.annotations.clip_masks import ClipMasks
from genhmr_jax.detect.camera_motion import is_moving
from genhmr_jax.detect.cuts import shots
from genhmr_jax.detect.dissolves import middles
from genhmr_jax.detect.tracker import Tracker
from genhmr_jax.geometry.ground import foot_contact, ground_of
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.geometry.motion import ABSENT, OBSERVED, frame_interval
from genhmr_jax.geometry.stature import check_height, with_stature
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.video import FrameSource, open_clip
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.clip_frames import FrameTables, observe
from genhmr_jax.recover.clip_person import PersonMotion, Rows, steady_person, steady_shape
from genhmr_jax.recover.photo import Recoverer, RecoverOptions

SHORTEST = 1 / 3
"""Seconds: shorter tracks are left out, unless the clip itself is shorter."""


@dataclasses.dataclass(frozen=True)
class ClipOptions:
    """Options of `recover_clip`.

    Attributes:
      photo: as for a photo, with one hypothesis and without `trace`. One camera serves all frames.
      height: metres, of all people; None: their heights are estimated.
      search_interval: seconds from one search of the whole picture for people to the next.
      motion: settings of the refinement over frames.
    """

    photo: RecoverOptions = RecoverOptions()
    height: float | None = None
    search_interval: float = 1 / 6
    motion: MotionSpec = MotionSpec()

    def of(self, source: FrameSource) -> "ClipOptions":
        """These options, with the focal length that EXIF of the source's pictures tells."""
        focal35 = self.photo.focal35 or source.focal35
        return dataclasses.replace(self, photo=dataclasses.replace(self.photo, focal35=focal35))

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
          InputError: the height is not that of a person.
          ValueError: several hypotheses.
        """
        if self.photo.hypotheses != 1:
            raise ValueError("a clip has one hypothesis for each assignment of left and right")
        if self.height is not None:
            check_height(self.height)  # before the long first pass


def recover_clip(
    source: FrameSource | str | os.PathLike,
    recoverer: Recoverer,
    options: ClipOptions = ClipOptions(),
    *,
    body_model: str = "neutral",
    tables: FrameTables | None = None,
    progress: Callable[[int, int], None] = lambda frames, people: None,
    masks: ClipMasks | None = None,
) -> Clip:
    """Recover the people of a clip.

    Args:
      source: its frames, of io.video.open_clip; or a video, or a folder of pictures.
      recoverer: of recover.photo.load.
      options: settings.
      body_model: name or path of the recoverer's body, for the result.
      tables: where the answers of single frames are kept; None: in a temporary folder.
      progress: see `observe`.
      masks: of the user, in place of the search for people; their labels are the identities.

    Returns:
      the people who are seen for at least SHORTEST seconds, or all who have masks. If the first
      pass was interrupted: in the frames up to there.

    Raises:
      InputError: no frame, or one of them, cannot be read.
      KeyboardInterrupt: the first pass was interrupted before any frame was complete.
    """
    if not isinstance(source, FrameSource):
        source = open_clip(source)
    options = options.of(source)
    if tables is None:
        with tempfile.TemporaryDirectory() as folder:
            own = FrameTables.make(pathlib.Path(folder), {})
            return recover_clip(
                source,
                recoverer,
                options,
                body_model=body_model,
                tables=own,
                progress=progress,
                masks=masks,
            )
    rate = 1 / frame_interval(source.times) if source.count > 1 else source.fps
    search_every = max(1, round(rate * options.search_interval))
    complete = observe(source, recoverer, options.photo, tables, search_every, progress, masks)
    if not len(tables.frames):
        if not complete:
            raise KeyboardInterrupt  # there is nothing to return
        raise InputError("the clip", "no frame of it can be read", "convert it, or copy it again")
    return settle(tables, recoverer, options, source.size, body_model)


def settle(
    tables: FrameTables,
    recoverer: Recoverer,
    options: ClipOptions,
    size: tuple[int, int],
    body_model: str = "neutral",
) -> Clip:
    """The second pass: from the answers of single frames to a Clip.

    Args:
      tables: of `observe`.
      recoverer, options, body_model: as of `recover_clip`.
      size: width and height of the frames, px.
    """
    frames, rows = tables.frames.read(), tables.people.read()
    times = np.array(frames["time"], np.float64)
    # 1. Identities, and one shape for each person. Nobody is followed over a cut.
    shot = shots(np.asarray(frames["change"]), times, middles(np.asarray(frames["dissolve"])))
    tracks = _tracks(tables, times, shot)
    moving = bool(shot.any()) or is_moving(np.asarray(frames["shift"]))
    # 2. Steady motions. With a static camera a second time, with feet that rest on the ground.
    motions = []
    for mine in tracks:
        betas = steady_shape(rows["betas"][mine, 0], rows["keypoints"][mine, :, 2].mean(-1))
        if options.height is not None:
            betas = with_stature(recoverer.body, betas, options.height)
        person = recoverer, rows, mine, times, betas, options.motion
        motion = steady_person(*person)
        if not moving and options.motion.contact:
            motion = steady_person(*person, contact=_contact(motion, times))
        motions.append(motion)
    camera = options.photo.camera(*size)
    found = {
        "frame_index": frames["index"],
        "times": times,
        "shot": shot,
        "image_size": np.array(size),
        "focal_length": np.float32(camera.focal),
        "principal_point": np.array(camera.principal_point),
        "body_model": np.array(body_model),
        "track_id": np.arange(1, len(tracks) + 1),
        "mask_label": np.array([rows["label"][mine[0]] for mine in tracks], int),
        "keypoint_names": np.array(DETECTED),
        "joint_names": np.array(recoverer.body.joint_names),
        "camera_moves": np.bool_(moving),
    }
    found |= _motion_fields(motions, len(times)) | _frame_fields(rows, tracks, motions, len(times))
    return Clip(**found, **({} if moving else _world_fields(motions, times)))


def _tracks(
    tables: FrameTables, times: Float[np.ndarray, "F"], shot: Int[np.ndarray, "F"]
) -> list[Int[np.ndarray, "N"]]:
    """The rows of each person, in the order of their first frames.

    Labels of the user's masks are the identities. Without them people are tracked, and short tracks
    are left out.
    """
    if not len(tables.people):
        return []
    rows = tables.people.read()
    ids, shortest = np.asarray(rows["label"]), 0.0
    if not ids.any():
        ids, shortest = _tracked(tables, times, shot), min(SHORTEST, 0.5 * (times[-1] - times[0]))
    of_rows = shot[rows["frame"]]
    found = [
        np.flatnonzero((ids == person) & (of_rows == number))
        for number in range(shot[-1] + 1)
        for person in np.unique(ids[(ids > 0) & (of_rows == number)])
    ]
    found.sort(key=lambda mine: mine[0])
    seconds = [times[rows["frame"][mine[[0, -1]]]] for mine in found]
    return [mine for mine, t in zip(found, seconds, strict=True) if t[1] - t[0] >= shortest]


def _tracked(
    tables: FrameTables, times: Float[np.ndarray, "F"], shot: Int[np.ndarray, "F"]
) -> Int[np.ndarray, "R"]:
    """The identity of each row, from 1; 0: none yet."""
    interval = frame_interval(times)
    trackers = [Tracker(interval) for _ in range(shot[-1] + 1)]
    ends = np.cumsum(tables.frames.read()["people"])
    looks = np.split(tables.people.read()["look"], ends[:-1])
    people = tables.people_of(range(len(times)))
    of_frames = zip(shot, times, people, looks, strict=True)
    return np.concatenate([trackers[number].update(*frame) for number, *frame in of_frames])


def _contact(motion: PersonMotion, times: np.ndarray) -> Float[np.ndarray, "F 2"]:
    """The weights of resting feet; 0 where the person is absent."""
    joints = np.where(motion.state[:, None, None] == ABSENT, np.nan, motion.joints)
    return foot_contact(joints, times)


def _motion_fields(motions: list[PersonMotion], count: int) -> dict[str, np.ndarray]:
    """The fields of Clip that PersonMotion has."""
    shapes = {
        "state": (0, count),
        "betas": (0, 10),
        "global_orient": (0, count, 3),
        "body_pose": (0, count, 69),
        "translation": (0, count, 3),
        "joints": (0, count, 24, 3),
        "joints2d": (0, count, 24, 2),
        "joint_confidence": (0, count, 24),
        "projected_keypoints": (0, count, len(DETECTED), 2),
    }
    return {
        name: np.stack([getattr(motion, name) for motion in motions])
        if motions
        else np.zeros(shape)
        for name, shape in shapes.items()
    }


def _frame_fields(
    rows: Rows, tracks: list[np.ndarray], motions: list[PersonMotion], count: int
) -> dict[str, np.ndarray]:
    """The fields of Clip that are of single frames."""
    columns = {
        "boxes": ("box", (4,)),
        "keypoints2d": ("keypoints", (len(DETECTED), 3)),
        "frame_global_orient": ("global_orient", (3,)),
        "frame_body_pose": ("body_pose", (69,)),
        "frame_translation": ("translation", (3,)),
        "frame_joints": ("joints", (24, 3)),
    }
    found = {
        name: np.zeros((len(tracks), count, *shape), np.float32)
        for name, (_, shape) in columns.items()
    }
    for person, (mine, motion) in enumerate(zip(tracks, motions, strict=True)):
        frames = rows["frame"][mine]
        for name, (column, _) in columns.items():
            values = rows[column][mine]
            # The first assignment is the answer for a photo.
            values = values[:, 0] if name.startswith("frame_") else values
            if name == "keypoints2d":
                values = assigned(values, motion.answer[frames])
            found[name][person, frames] = values
    return found


def _world_fields(motions: list[PersonMotion], times: np.ndarray) -> dict[str, np.ndarray]:
    """Resting feet, and the ground below them if there are enough."""
    contact = np.zeros((len(motions), len(times), 2), np.float32)
    for person, motion in enumerate(motions):
        contact[person] = _contact(motion, times)
    found = {"foot_contact": contact}
    seen = [motion.state == OBSERVED for motion in motions]
    joints = [motion.joints[known] for motion, known in zip(motions, seen, strict=True)]
    weights = [feet[known] for feet, known in zip(contact, seen, strict=True)]
    world = ground_of(np.concatenate(joints), np.concatenate(weights)) if motions else None
    if world is not None:
        found |= {"world_rotation": world.rotation, "world_translation": world.translation}
    return found
