"""`People`: the results for one photo as plain NumPy arrays, and their `.npz` file."""

import dataclasses

import numpy as np

from genhmr_jax.recover.results import Results, reprojection_error

# Sizes: P people, K keypoints, V vertices, F faces, H hypotheses, S refinement steps + 1, T tokens.
SHAPES = {
    "boxes": ("P", 4),
    "given_index": ("P",),
    "left_out": (),
    "keypoints2d": ("P", "K", 3),
    "keypoint_names": ("K",),
    "global_orient": ("P", 3),
    "body_pose": ("P", 69),
    "betas": ("P", 10),
    "weak_camera": ("P", 3),
    "translation": ("P", 3),
    "focal_length": (),
    "principal_point": (2,),
    "image_size": (2,),
    "vertices": ("P", "V", 3),
    "joints": ("P", 24, 3),
    "joints2d": ("P", 24, 2),
    "joint_confidence": ("P", 24),
    "faces": ("F", 3),
    "joint_names": (24,),
    "projected_keypoints": ("P", "K", 2),
    "sampled_keypoints": ("P", "K", 2),
    "tokens": ("P", "T"),
    "refine_loss": ("P", "S"),
    "left_hand_pose": ("P", 45),
    "right_hand_pose": ("P", 45),
    "left_hand_confidence": ("P",),
    "right_hand_confidence": ("P",),
    "wrist_from_hand": ("P", 2),
    "vertex_std": ("P", "V"),
    "hypothesis_global_orient": ("P", "H", 3),
    "hypothesis_body_pose": ("P", "H", 69),
    "hypothesis_betas": ("P", "H", 10),
    "hypothesis_translation": ("P", "H", 3),
    "hypothesis_joints": ("P", "H", 24, 3),
    "hypothesis_confidence": ("P", "H", 24),
}
_DTYPES = {
    **dict.fromkeys(("keypoint_names", "joint_names"), np.str_),
    **dict.fromkeys(("image_size", "faces", "tokens", "given_index", "left_out"), np.int32),
    "wrist_from_hand": np.bool_,
}


@dataclasses.dataclass(frozen=True, eq=False)
class People(Results):
    """The P people of one photo. Every array is NumPy; floats are float32. `len(people)` is P.

    Pixel coordinates are those of the original photo; the centre of a pixel is at +0.5. Camera
    coordinates: x right, y down, z forward, metres; pixel = focal_length * X / Z + principal_point.

    Attributes:
      boxes: (P, 4) x0, y0, x1, y1, px.
      given_index: (P,) index of each person among the given boxes or keypoints, from 0; -1 for
        people found by the detector.
      left_out: () number of people that were found or given beyond `max_people`.
      keypoints2d: (P, K, 3) the 2D keypoints to which the body was fitted: x px, y px, confidence
        0..1.
      keypoint_names: (K,).
      global_orient: (P, 3) root rotation, axis-angle, radians, in camera coordinates.
      body_pose: (P, 69) 23 joint rotations, axis-angle, radians.
      betas: (P, 10) shape coefficients of the body model in use.
      weak_camera: (P, 3) s, tx, ty of the person's square crop, in the convention of HMR.
      translation: (P, 3) of the model origin (which is not the pelvis), metres.
      focal_length: () px.
      image_size: (2,) width, height, px.
      principal_point: (2,) px; the middle of the image unless another one was given.
      vertices: (P, V, 3) camera coordinates, metres.
      joints: (P, 24, 3) camera coordinates, metres.
      joints2d: (P, 24, 2) px.
      joint_confidence: (P, 24) 0..1, the probability that the joint of the aligned pose is within
        100 mm of the truth: learned, or from the spread of the network's own samples; NaN for
        regressors (HMR2.0, TokenHMR), which have no estimate.
      faces: (F, 3) vertex indices.
      joint_names: (24,).
      projected_keypoints: (P, K, 2) projections of the body's `keypoint_names` points, px.
      sampled_keypoints: (P, K, 2) the same before refinement, px.
      tokens: (P, T) pose token ids.
      refine_loss: (P, S) refinement loss before the first and after each step.
      left_hand_pose, right_hand_pose: (P, 45) with --hands: 15 joint rotations of a hand in MANO's
        order, axis-angle, radians. The pose of SMPL-H is global_orient, the first 63 numbers of
        body_pose, left_hand_pose, right_hand_pose (geometry.fingers.full_pose); the vertices are in
        this pose.
      left_hand_confidence, right_hand_confidence: (P,) probability that there is the hand, times
        the mean probability that a joint is within 10 mm of the truth; 0 where no hand was found:
        then the four fingers turn as the joint `hand` of body_pose, and the thumb is straight.
      wrist_from_hand: (P, 2) whether the left and the right wrist and elbow follow the hand.
      vertex_std: (P, V) standard deviation of the hypotheses, mm.
      hypothesis_global_orient, hypothesis_body_pose, hypothesis_betas, hypothesis_translation,
        hypothesis_joints, hypothesis_confidence: (P, H, ...) the hypotheses, the best first
        (core.solve.SolveOptions).
    """

    boxes: np.ndarray
    keypoints2d: np.ndarray
    keypoint_names: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    weak_camera: np.ndarray
    translation: np.ndarray
    focal_length: np.ndarray
    image_size: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    joints2d: np.ndarray
    joint_confidence: np.ndarray
    faces: np.ndarray
    joint_names: np.ndarray
    principal_point: np.ndarray | None = None
    given_index: np.ndarray | None = None
    left_out: np.ndarray | None = None
    projected_keypoints: np.ndarray | None = None
    sampled_keypoints: np.ndarray | None = None
    tokens: np.ndarray | None = None
    refine_loss: np.ndarray | None = None
    left_hand_pose: np.ndarray | None = None
    right_hand_pose: np.ndarray | None = None
    left_hand_confidence: np.ndarray | None = None
    right_hand_confidence: np.ndarray | None = None
    wrist_from_hand: np.ndarray | None = None
    vertex_std: np.ndarray | None = None
    hypothesis_global_orient: np.ndarray | None = None
    hypothesis_body_pose: np.ndarray | None = None
    hypothesis_betas: np.ndarray | None = None
    hypothesis_translation: np.ndarray | None = None
    hypothesis_joints: np.ndarray | None = None
    hypothesis_confidence: np.ndarray | None = None

    shapes, dtypes, command = SHAPES, _DTYPES, "genhmr recover"

    def __post_init__(self) -> None:
        """Convert every field to a NumPy array of its type, and check the shapes.

        Raises:
          ValueError: a shape does not match SHAPES, or two arrays disagree about a size.
        """
        if self.principal_point is None:
            object.__setattr__(self, "principal_point", np.asarray(self.image_size) / 2.0)
        if self.given_index is None:
            object.__setattr__(self, "given_index", np.full(np.shape(self.boxes)[:1], -1))
        if self.left_out is None:
            object.__setattr__(self, "left_out", np.int32(0))
        self.check()

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def reprojection_error(self, refined: bool = True, min_confidence: float = 0.3) -> np.ndarray:
        """Mean distance of each person's projected keypoints from the 2D keypoints, px.

        Args:
          refined: measure the final body, not the body before refinement.
          min_confidence: keypoints of lower confidence are ignored.

        Returns:
          (P,) px; NaN without projected keypoints, or without 2D keypoints of this confidence.
        """
        points = self.projected_keypoints if refined else self.sampled_keypoints
        if points is None:
            return np.full(len(self), np.nan, np.float32)
        return reprojection_error(points, self.keypoints2d, min_confidence)
