"""From a photo to its hands. `load_hands().recover(image)` runs these steps:

detect_hands -> prepare (mirrors left hands) -> core.solve -> mirror back -> HandMeshes
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import smpl_jax

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.solve import Solved, solve
from genhmr_jax.core.system import Params, PhotoCamera
from genhmr_jax.data.annotations.hands import GivenHand
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.hands import Hands, detect_hands, hand_in_box
from genhmr_jax.geometry.hand import (
    HAND21,
    hand_keypoint_model,
    load_hand,
    mirror_pixels,
    mirror_points,
)
from genhmr_jax.geometry.hand import mirror_pose as mirrored_pose
from genhmr_jax.geometry.keypoints import keypoint_bounds
from genhmr_jax.io.model_folder import load_meta, load_params
from genhmr_jax.recover.photo import RecoverOptions, default_checkpoint, in_chunks, keys_of
from genhmr_jax.recover.results import Results, reprojection_error
from genhmr_jax.systems import registry
from genhmr_jax.systems.maskhand.system import EXACT, KIND, MaskHandSystem

# Sizes: P hands, K keypoints, V vertices, F faces, H hypotheses, S refinement steps + 1, T tokens.
SHAPES = {
    "boxes": ("P", 4),
    "scores": ("P",),
    "right": ("P",),
    "person": ("P",),
    "keypoints2d": ("P", "K", 3),
    "keypoint_names": ("K",),
    "global_orient": ("P", 3),
    "hand_pose": ("P", 45),
    "betas": ("P", 10),
    "weak_camera": ("P", 3),
    "translation": ("P", 3),
    "focal_length": (),
    "principal_point": (2,),
    "image_size": (2,),
    "vertices": ("P", "V", 3),
    "joints": ("P", 16, 3),
    "joints2d": ("P", 16, 2),
    "joint_confidence": ("P", 16),
    "faces_right": ("F", 3),
    "faces_left": ("F", 3),
    "joint_names": (16,),
    "projected_keypoints": ("P", "K", 2),
    "sampled_keypoints": ("P", "K", 2),
    "tokens": ("P", "T"),
    "refine_loss": ("P", "S"),
    "vertex_std": ("P", "V"),
    "hypothesis_global_orient": ("P", "H", 3),
    "hypothesis_hand_pose": ("P", "H", 45),
    "hypothesis_betas": ("P", "H", 10),
    "hypothesis_translation": ("P", "H", 3),
    "hypothesis_joints": ("P", "H", 16, 3),
    "hypothesis_confidence": ("P", "H", 16),
}
_DEFAULTS = RecoverOptions()
_DTYPES = {
    **dict.fromkeys(("keypoint_names", "joint_names"), np.str_),
    **dict.fromkeys(("image_size", "faces_right", "faces_left", "tokens", "person"), np.int32),
    "right": np.bool_,
}


@dataclasses.dataclass(frozen=True, eq=False)
class HandMeshes(Results):
    """The P hands of one photo, by decreasing score. Every array is NumPy; floats are float32.

    The axes and the fields without a comment are those of recover.people.People, of MANO's 16
    joints. The mesh of a left hand is the mirror image of that of a right one.

    Attributes:
      boxes: (P, 4) around the keypoints, px.
      scores: (P,) probability 0..1 that there is a hand.
      right: (P,) whether it is a right hand.
      person: (P,) index of the person at whose wrist it is, if people were given; else -1.
      keypoints2d: (P, 21, 3) as detected, in the order of `keypoint_names` (HAND21).
      hand_pose: (P, 45) 15 joint rotations in MANO's order, axis-angle, radians.
      joint_confidence: (P, 16) probability that the joint is within 10 mm of the truth.
      faces_right, faces_left: (F, 3) of right and of left hands.
    """

    boxes: np.ndarray
    scores: np.ndarray
    right: np.ndarray
    person: np.ndarray
    keypoints2d: np.ndarray
    keypoint_names: np.ndarray
    global_orient: np.ndarray
    hand_pose: np.ndarray
    betas: np.ndarray
    weak_camera: np.ndarray
    translation: np.ndarray
    focal_length: np.ndarray
    image_size: np.ndarray
    principal_point: np.ndarray
    vertices: np.ndarray
    joints: np.ndarray
    joints2d: np.ndarray
    joint_confidence: np.ndarray
    faces_right: np.ndarray
    faces_left: np.ndarray
    joint_names: np.ndarray
    projected_keypoints: np.ndarray
    sampled_keypoints: np.ndarray
    tokens: np.ndarray
    refine_loss: np.ndarray
    vertex_std: np.ndarray | None = None
    hypothesis_global_orient: np.ndarray | None = None
    hypothesis_hand_pose: np.ndarray | None = None
    hypothesis_betas: np.ndarray | None = None
    hypothesis_translation: np.ndarray | None = None
    hypothesis_joints: np.ndarray | None = None
    hypothesis_confidence: np.ndarray | None = None

    shapes, dtypes, command = SHAPES, _DTYPES, "genhmr hands"

    def __post_init__(self) -> None:
        """See Results.check."""
        self.check()

    def __len__(self) -> int:
        return self.boxes.shape[0]

    def faces(self, hand: int) -> np.ndarray:
        """The faces (F, 3) of a hand."""
        return self.faces_right if self.right[hand] else self.faces_left

    def reprojection_error(self, refined: bool = True, min_confidence: float = 0.3) -> np.ndarray:
        """Mean distance of each hand's projected keypoints from the detected ones, (P,) px.

        Args:
          refined: measure the final hand, not the hand before refinement.
          min_confidence: keypoints of lower confidence are ignored.
        """
        points = self.projected_keypoints if refined else self.sampled_keypoints
        return reprojection_error(points, self.keypoints2d, min_confidence)


def load_hands(
    checkpoint: str | pathlib.Path | None = None, hand: str | pathlib.Path = "free"
) -> "HandRecoverer":
    """Load a model of hands and a hand.

    Args:
      checkpoint: model folder; default: the model that comes with the package.
      hand: "free", or the path of MANO_RIGHT.pkl.

    Raises:
      InputError: with one line that names the file at fault and a remedy.
    """
    directory = default_checkpoint(KIND) if checkpoint is None else pathlib.Path(checkpoint)
    meta = load_meta(directory)
    system = registry.system_of(meta, directory, "hands")
    return HandRecoverer(system, load_params(directory, system.shapes), load_hand(hand))


@dataclasses.dataclass(frozen=True, eq=False)
class PreparedHands:
    """The hands of a photo, ready to be solved. It does not hold the pixels of the photo.

    Attributes:
      hands: as detected.
      inputs: of the system; one row without meaning if there is no hand.
      photo: the camera.
      size: width and height of the photo, px.
    """

    hands: Hands
    inputs: Inputs
    photo: PhotoCamera
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class HandRecoverer:
    """A system of hands with its parameters, and a right hand."""

    system: MaskHandSystem
    params: Params
    hand: smpl_jax.SmplModel

    @functools.cached_property
    def _surface(self) -> smpl_jax.SmplModel:
        return hand_keypoint_model(self.hand)

    def recover(
        self,
        image: np.ndarray,
        *,
        people: Detections | None = None,
        given: Sequence[GivenHand] | None = None,
        options: RecoverOptions = _DEFAULTS,
        max_hands: int = 16,
    ) -> HandMeshes:
        """Recover the hands of one photo.

        Args:
          image: uint8 (H, W, 3), RGB.
          people: the detected people; see detect.hands.detect_hands.
          given: hands in place of the detector's. In a box the keypoints are detected; a box
            without a hand is left out.
          options: `max_people` and `context` have no effect.
          max_hands: limit of the number of hands.

        Raises:
          ValueError: `image` is not a uint8 (H, W, 3) array.
        """
        if given is None:
            hands = detect_hands(image, people, max_hands)
        else:
            hands = hands_given(image, given)
        height, width = image.shape[:2]
        prepared = self.prepare(image, hands, options.camera(width, height))
        exact = given is not None and all(one.keypoints is not None for one in given)
        return self.recover_prepared(prepared, options, exact=exact)

    def prepare(self, image: np.ndarray, hands: Hands, photo: PhotoCamera) -> PreparedHands:
        """The inputs of the detected hands of a photo (uint8 (H, W, 3), RGB) with this camera."""
        # Without a hand one row without meaning gives the arrays their shapes.
        inputs = self.system.prepare(image, hands, photo, max(len(hands), 1))
        return PreparedHands(hands, inputs, photo, (image.shape[1], image.shape[0]))

    def recover_prepared(
        self,
        prepared: PreparedHands,
        options: RecoverOptions = _DEFAULTS,
        *,
        exact: bool = False,
    ) -> HandMeshes:
        """Recover prepared hands.

        Args:
          prepared: of `prepare`.
          options: of the camera nothing is used.
          exact: whether the keypoints are known well, as those of the user: then the refinement
            follows them closely.
        """
        # 1. Solve.
        hands, photo = prepared.hands, prepared.photo
        right, numbers = hands.right >= 0.5, np.arange(prepared.inputs.rows)
        how = options.solving(self.system)
        if exact:
            close = dataclasses.replace(EXACT, steps=how.refine.steps)
            how = dataclasses.replace(how, refine=close)
        arguments = self.system, self.params, self.hand, self._surface
        keys = lambda chosen: keys_of(np.uint32(options.seed % 2**32), chosen)
        run = lambda chunk, chosen: solve(*arguments, chunk, keys(chosen), how)
        solved = jax.tree.map(lambda x: x[: len(hands)], in_chunks(run, prepared.inputs, numbers))
        # 2. Mirror back.
        return HandMeshes(
            boxes=hands.boxes,
            scores=hands.scores,
            right=right,
            person=hands.person,
            keypoints2d=hands.keypoints,
            keypoint_names=np.array(HAND21),
            focal_length=np.float32(photo.focal),
            principal_point=np.array(photo.principal_point),
            image_size=np.array(prepared.size),
            faces_right=np.asarray(self.hand.faces),
            faces_left=np.asarray(self.hand.faces)[:, ::-1],
            joint_names=np.array(self.hand.joint_names),
            **_mirrored_back(solved, right, photo),
        )


def hands_given(image: np.ndarray, given: Sequence[GivenHand]) -> Hands:
    """The user's hands as detections. Keypoints outside the image keep their confidence.

    Args:
      image: uint8 (H, W, 3), RGB.
      given: keypoints, or boxes in which keypoints are detected; without a hand in a box it is left
        out.
    """
    found = [Hands.empty()]
    for one in given:
        if one.keypoints is None:
            hand = hand_in_box(image, one.box)
        else:
            points = one.keypoints[None]
            box = keypoint_bounds(points)
            scores = points[..., 2].max(-1)
            hand = dataclasses.replace(Hands.empty(1), keypoints=points, boxes=box, scores=scores)
        if one.right is not None:
            hand = dataclasses.replace(hand, right=np.full(len(hand), one.right, np.float32))
        found.append(hand)
    names = [field.name for field in dataclasses.fields(Hands)]
    return Hands(**{n: np.concatenate([getattr(hand, n) for hand in found]) for n in names})


def _mirrored_back(solved: Solved, right: np.ndarray, photo: PhotoCamera) -> dict[str, Any]:
    """The fields of HandMeshes that follow from the answer for right hands."""
    values = {field.name: getattr(solved, field.name) for field in dataclasses.fields(solved)}
    several = values.pop("hypotheses")
    values["hand_pose"] = values.pop("body_pose")
    if several is not None:
        found = {f.name: getattr(several, f.name) for f in dataclasses.fields(several)}
        values["vertex_std"] = found.pop("vertex_std")
        found["hand_pose"] = found.pop("body_pose")
        values |= {f"hypothesis_{name}": value for name, value in found.items()}

    def poses(x: np.ndarray) -> np.ndarray:
        joints = x.reshape(*x.shape[:-1], x.shape[-1] // 3, 3)
        return np.asarray(mirrored_pose(joints)).reshape(x.shape)

    weak = lambda x: x * np.float32([1, -1, 1])
    kinds = {
        poses: ("global_orient", "hand_pose"),
        mirror_points: ("vertices", "joints", "translation"),
        weak: ("weak_camera",),
        functools.partial(mirror_pixels, middle=photo.principal_point[0]): (
            *("joints2d", "projected_keypoints", "sampled_keypoints"),
        ),
    }
    for mirror, names in kinds.items():
        for name in (*names, *(f"hypothesis_{name}" for name in names)):
            if name in values:
                own = np.asarray(values[name])
                side = right.reshape(-1, *[1] * (own.ndim - 1))
                values[name] = np.where(side, own, mirror(own))
    return values
