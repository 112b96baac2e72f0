"""`Clip`: the people of a clip over time as plain NumPy arrays, and their `.npz` file."""

import dataclasses

import numpy as np

from genhmr_jax.recover.results import Results

# Sizes: P people (tracks), F frames, K keypoints, H hypotheses.
SHAPES = {
    "frame_index": ("F",),
    "times": ("F",),
    "shot": ("F",),
    "image_size": (2,),
    "focal_length": (),
    "principal_point": (2,),
    "body_model": (),
    "track_id": ("P",),
    "mask_label": ("P",),
    "state": ("P", "F"),
    "boxes": ("P", "F", 4),
    "keypoints2d": ("P", "F", "K", 3),
    "keypoint_names": ("K",),
    "betas": ("P", 10),
    "global_orient": ("P", "F", 3),
    "body_pose": ("P", "F", 69),
    "translation": ("P", "F", 3),
    "joints": ("P", "F", 24, 3),
    "joints2d": ("P", "F", 24, 2),
    "joint_confidence": ("P", "F", 24),
    "joint_names": (24,),
    "projected_keypoints": ("P", "F", "K", 2),
    "camera_moves": (),
    "world_rotation": (3, 3),
    "world_translation": (3,),
    "foot_contact": ("P", "F", 2),
    "frame_global_orient": ("P", "F", 3),
    "frame_body_pose": ("P", "F", 69),
    "frame_translation": ("P", "F", 3),
    "frame_joints": ("P", "F", 24, 3),
    "left_hand_pose": ("P", "F", 45),
    "right_hand_pose": ("P", "F", 45),
    "left_hand_confidence": ("P", "F"),
    "right_hand_confidence": ("P", "F"),
}
_DTYPES = {
    **dict.fromkeys(("keypoint_names", "joint_names", "body_model"), np.str_),
    **dict.fromkeys(
        ("frame_index", "shot", "image_size", "track_id", "mask_label", "state"), np.int32
    ),
    "times": np.float64,
    "camera_moves": np.bool_,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Clip(Results):
    """The P people of a clip of F frames. Every array is NumPy; floats are float32.

    Coordinates are those of recover.people.People, in the camera of each frame. Rows of people who
    are ABSENT from a frame are zero. In FILLED frames, what comes from the frame itself is zero:
    boxes, keypoints2d and the fields frame_*.

    Attributes:
      frame_index: (F,) number of each frame in the source, from 0.
      times: (F,) seconds from the start of the source, float64.
      shot: (F,) number of the shot of each frame, from 0; another one begins with each cut.
      image_size: (2,) width, height, px.
      focal_length: () px, one for the clip.
      principal_point: (2,) px.
      body_model: () name of the free body, or path of the user's.
      track_id: (P,) identity of each person, from 1, in the order of appearance.
      mask_label: (P,) the label of the person in the user's masks; 0 without masks. A label that is
        seen before and after a cut has two people.
      state: (P, F) ABSENT, OBSERVED or FILLED of geometry.motion.
      boxes: (P, F, 4) x0, y0, x1, y1, px.
      keypoints2d: (P, F, K, 3) detected 2D keypoints: x px, y px, confidence 0..1. Where the track
        shows that the detector confused left and right, they are exchanged.
      keypoint_names: (K,).
      betas: (P, 10) shape, one for each person.
      global_orient: (P, F, 3), body_pose: (P, F, 69) axis-angle, radians.
      translation: (P, F, 3) of the model origin, metres.
      joints: (P, F, 24, 3) metres. joints2d: (P, F, 24, 2) px.
      joint_confidence: (P, F, 24) 0..1.
      joint_names: (24,).
      projected_keypoints: (P, F, K, 2) px, of the body's `keypoint_names` points.
      camera_moves: () whether the background moves, or there is a cut; then there is no world.
      world_rotation: (3, 3), world_translation: (3,) from camera to world coordinates (y up,
        metres, the ground at y = 0): world = rotation @ camera + translation. None if not known.
      foot_contact: (P, F, 2) weight 0..1 with which the left and the right foot rest on the ground
        from a frame to the next one (geometry.ground.foot_contact).
      frame_global_orient, frame_body_pose, frame_translation, frame_joints: (P, F, ...) the answer
        of each frame by itself, before the track was made steady.
      left_hand_pose, right_hand_pose: (P, F, 45) axis-angle of the 15 finger joints in MANO's
        order, radians, with --hands; elbows and wrists of body_pose then follow the hands.
      left_hand_confidence, right_hand_confidence: (P, F) 0..1: how far the fingers are those of
        detected hands; 0 where they are those of the body's joint of the hand.
    """

    frame_index: np.ndarray
    times: np.ndarray
    shot: np.ndarray
    image_size: np.ndarray
    focal_length: np.ndarray
    principal_point: np.ndarray
    body_model: np.ndarray
    track_id: np.ndarray
    mask_label: np.ndarray
    state: np.ndarray
    boxes: np.ndarray
    keypoints2d: np.ndarray
    keypoint_names: np.ndarray
    betas: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    translation: np.ndarray
    joints: np.ndarray
    joints2d: np.ndarray
    joint_confidence: np.ndarray
    joint_names: np.ndarray
    projected_keypoints: np.ndarray
    camera_moves: np.ndarray
    world_rotation: np.ndarray | None = None
    world_translation: np.ndarray | None = None
    foot_contact: np.ndarray | None = None
    frame_global_orient: np.ndarray | None = None
    frame_body_pose: np.ndarray | None = None
    frame_translation: np.ndarray | None = None
    frame_joints: np.ndarray | None = None
    left_hand_pose: np.ndarray | None = None
    right_hand_pose: np.ndarray | None = None
    left_hand_confidence: np.ndarray | None = None
    right_hand_confidence: np.ndarray | None = None

    shapes, dtypes, command = SHAPES, _DTYPES, "genhmr recover CLIP"

    def __post_init__(self) -> None:
        """Convert every field to a NumPy array of its type, and check the shapes.

        Raises:
          ValueError: a shape does not match SHAPES, or two arrays disagree about a size.
        """
        self.check()

    @property
    def why_no_world(self) -> str:
        """Why there are no world coordinates; empty if there are."""
        if self.world_rotation is not None:
            return ""
        if self.shot.any():
            return "there are cuts"
        return "the camera moves" if self.camera_moves else "too few feet rest on the ground"

    def __len__(self) -> int:
        return len(self.track_id)
