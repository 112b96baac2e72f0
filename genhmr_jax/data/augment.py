"""Augmentation of a photo of a person by one change of the camera; image and labels follow from it.

A turned photo is the view of a camera turned about its optical axis, and a mirrored photo is the
view of a mirrored world, so the labels of the changed photo are exact. Numbers and extreme
crops are those of HMR2 (Goel et al. 2023; hmr2/datasets/utils.py and default.yaml of 4D-Humans) and
TokenHMR (Dwivedi et al. 2024); occluders are ours.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from smpl_jax.keypoints import BODY44, flip_rotmats

from genhmr_jax.geometry import camera


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """How strongly photos are changed. N is a normal number."""

    scale: float = 0.3  # side of the crop x (1 + scale clip(N, -1, 1))
    rotation: float = 30.0  # degrees: angle = rotation clip(N, -2, 2), ...
    rotate: float = 0.6  # ... in this share of the samples
    shift: float = 0.02  # of the crop's side: shift clip(N, -1, 1), across and down
    flip: float = 0.5
    colour: float = 0.2  # each channel x U(1 - colour, 1 + colour)
    extreme_crop: float = 0.1  # share of samples cut down to a part of the body (part_of)
    occlude: float = 0.1  # share of samples with drawn objects in front of the person; 0 in HMR2


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to one sample; without arguments, nothing."""

    scale: float = 1.0
    angle: float = 0.0  # radians; the content turns clockwise (x towards y)
    shift: tuple[float, float] = (0.0, 0.0)  # of the crop's side
    flip: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    extreme: float | None = None  # 0..1, which extreme crop; None for none
    occluders: int = 0
    seed: int = 0  # of the occluders' appearance


def _side(side: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names)


def _sides(*names: str) -> tuple[str, ...]:
    return _side("left", *names) + _side("right", *names)


_FACE = ("nose", "neck", *_sides("eye", "ear"), "neck_lsp", "head_top_lsp", "jaw_h36m", "head_h36m")
_ARM = ("shoulder", "elbow", "wrist")
_LEG = ("hip", "knee", "ankle", "big_toe", "small_toe", "heel")
_MIDDLE = ("neck_lsp", "pelvis_mpii", "thorax_mpii", "spine_h36m")
_TORSO = ("neck", "mid_hip", *_sides("shoulder", "hip"), *_MIDDLE)
PARTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "to_hips": (1.1, (*_FACE, *_TORSO, *_sides(*_ARM))),
    "to_shoulders": (1.2, (*_FACE, *_sides("shoulder"))),
    "head": (1.3, (*_FACE, "openpose_left_shoulder", "openpose_right_shoulder")),
    "torso": (1.1, _TORSO),
    "right_arm": (1.1, _side("right", *_ARM)),
    "left_arm": (1.1, _side("left", *_ARM)),
    "legs": (1.1, (*_sides(*_LEG), "mid_hip", "pelvis_mpii")),
    "right_leg": (1.1, _side("right", *_LEG)),
    "left_leg": (1.1, _side("left", *_LEG)),
}
"""Extreme crops: the margin, and the keypoints inside (crop_to_hips, L663, to crop_leftleg_only,
L873, of hmr2/datasets/utils.py). A name means that keypoint in both halves of BODY44. The head has
the shoulders of OpenPose, as there."""

FULL_BODY_PARTS = {
    "to_hips": 0.2, "to_shoulders": 0.3, "head": 0.4, "torso": 0.5, "right_arm": 0.6,
    "left_arm": 0.7, "legs": 0.8, "right_leg": 0.9, "left_leg": 1.0,
}  # fmt: skip
UPPER_BODY_PARTS = {
    "to_shoulders": 0.2, "head": 0.4, "torso": 0.6, "right_arm": 0.8, "left_arm": 1.0,
}  # fmt: skip
"""Upper ends of the shares of the extreme crops (extreme_cropping_aggressive, L978, which is what
HMR2's EXTREME_CROP_AUG_LEVEL of 1 means)."""


def _of_body(*names: str) -> np.ndarray:
    """Which keypoints of BODY44 have one of these names."""
    return np.array([name in names or name.removeprefix("openpose_") in names for name in BODY44])


_IN_PART = {part: _of_body(*names) for part, (_, names) in PARTS.items()}
_LIMBS = np.array([_of_body(name) for name in _sides(*_ARM, "knee", "ankle")])  # (10, 44)
_LOWER_LIMBS = _of_body(*_sides("knee", "ankle"))
# The shoulders are those of the second half of BODY44 alone, not OpenPose's.
_HEAD_AND_SHOULDERS = _of_body(*_FACE) | np.isin(BODY44, _sides("shoulder"))
_BOX_MARGIN = 1.2  # of every part, besides its own (get_bbox, L927)
_SMALLEST_PART = 4.0  # px (get_example, L595)


def draw(spec: AugmentSpec, seed: int, number: int) -> Augmentation:
    """The augmentation of the sample with this global number: a function of its arguments alone."""
    random = np.random.default_rng((seed, number))
    normal = random.standard_normal(4)
    uniform = random.random(8)
    angle = math.radians(spec.rotation) * float(np.clip(normal[1], -2, 2))
    return Augmentation(
        scale=1.0 + spec.scale * float(np.clip(normal[0], -1, 1)),
        angle=angle * (uniform[0] < spec.rotate),
        shift=tuple(spec.shift * np.clip(normal[2:4], -1, 1)),
        flip=bool(uniform[1] < spec.flip),
        colour=tuple(1.0 + spec.colour * (2 * uniform[2:5] - 1)),
        extreme=float(uniform[6]) if uniform[5] < spec.extreme_crop else None,
        occluders=int(random.integers(1, 4)) if uniform[7] < spec.occlude else 0,
        seed=int(random.integers(2**31)),
    )


def part_of(keypoints: Float[np.ndarray, "44 3"], extreme: float) -> str:
    """The extreme crop, a key of PARTS, of a person with these keypoints; "": no crop.

    A full body has shoulders, elbows, wrists, knees and ankles of both sides, each in at least one
    half of BODY44 (full_body, L899, of hmr2/datasets/utils.py). An upper body has no knees and
    ankles, but at least two points of the head and shoulders (upper_body, L912). Others are not
    cropped.

    Args:
      keypoints: BODY44, px and confidence.
      extreme: 0..1, uniform over the samples.
    """
    known = keypoints[:, 2] > 0
    if (_LIMBS & known).any(1).all():
        shares = FULL_BODY_PARTS
    elif not (_LOWER_LIMBS & known).any() and (_HEAD_AND_SHOULDERS & known).sum() >= 2:
        shares = UPPER_BODY_PARTS
    else:
        return ""
    return next((part for part, end in shares.items() if extreme < end), list(shares)[-1])


def crop_square(
    box: Float[np.ndarray, "4"], keypoints: Float[np.ndarray, "44 3"], augmentation: Augmentation
) -> Float[np.ndarray, "3"]:
    """Centre and side of the augmented crop in the original image, px, before turn and mirror.

    A box grows to 3 : 4 first (camera.square_around). A part does not: the side of its square is
    the longer side of its box, as in get_example, L527, of hmr2/datasets/utils.py.

    Args:
      box: of the person, xyxy px.
      keypoints: BODY44, px and confidence, for an extreme crop. There is no extreme crop if the
        confidences of the part's keypoints add up to 1 or less, or the part is below 4 px.
    """
    square = camera.square_around(box)
    part = "" if augmentation.extreme is None else part_of(keypoints, augmentation.extreme)
    if part:
        known = keypoints[_IN_PART[part] & (keypoints[:, 2] > 0)]
        if known[:, 2].sum() > 1:
            low, high = known[:, :2].min(0), known[:, :2].max(0)
            side = PARTS[part][0] * _BOX_MARGIN * (high - low).max()
            square = np.array([*(low + high) / 2, side]) if side >= _SMALLEST_PART else square
    square[:2] += square[2] * np.asarray(augmentation.shift)
    square[2] *= augmentation.scale
    return square


@dataclasses.dataclass(frozen=True)
class View:
    """The camera of the augmented photo, and the changes of pixels and labels from the old camera.

    It has square pixels, and its principal point is the middle of the image, whatever the original
    camera was: pixel = focal X/Z + size / 2.

    Attributes:
      turn: (3, 3) old camera coordinates -> new ones; orthogonal, determinant -1 if mirrored.
      affine: (2, 3) old px -> new px.
      focal: px.
      size: (2,) width and height of the image, px.
    """

    turn: Float[np.ndarray, "3 3"]
    affine: Float[np.ndarray, "2 3"]
    focal: float
    size: Float[np.ndarray, "2"]

    @property
    def mirrored(self) -> bool:
        """Whether the determinant is -1; all turns are about the z axis."""
        return bool(self.turn[0, 0] * self.turn[1, 1] < self.turn[0, 1] * self.turn[1, 0])

    def pixels(self, points: Float[np.ndarray, "*k 2"]) -> Float[np.ndarray, "*k 2"]:
        """Old px -> new px."""
        return points @ self.affine[:, :2].T + self.affine[:, 2]

    def crop(self, square: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        """A square of the old image -> centre and side, px, of its upright crop in the new one."""
        scale = math.sqrt(abs(np.linalg.det(self.affine[:, :2])))
        return np.append(self.pixels(square[:2]), scale * square[2])

    def crop_matrix(self, crop: Float[np.ndarray, "3"], size: int) -> Float[np.ndarray, "2 3"]:
        """Px of an upright crop of the new image -> px of the old image, for geometry/warp.py."""
        step = crop[2] / size
        back = np.linalg.inv(self.affine[:, :2])
        corner = back @ (crop[:2] - crop[2] / 2 - self.affine[:, 2])
        return np.concatenate([step * back, corner[:, None]], -1)

    def labels(
        self, points: Float[np.ndarray, "K C"], flip: Int[np.ndarray, "K"]
    ) -> Float[np.ndarray, "K C"]:
        """Keypoints of the new camera.

        Args:
          points: (K, 3) px or (K, 4) metres, with the confidence in the last column. Unknown points
            (confidence 0) stay zero.
          flip: left/right permutation, used if mirrored.
        """
        moved = self.pixels(points[:, :2]) if points.shape[1] == 3 else points[:, :3] @ self.turn.T
        changed = np.concatenate([np.where(points[:, -1:] > 0, moved, 0.0), points[:, -1:]], -1)
        return changed[np.asarray(flip)] if self.mirrored else changed

    def rotmats(self, rotmats: Float[np.ndarray, "24 3 3"]) -> Float[np.ndarray, "24 3 3"]:
        """Joint rotations of the new camera; the root's is in camera coordinates.

        A mirror image swaps sides and conjugates rotations. A turn changes the root alone.
        """
        if not self.mirrored:
            return np.concatenate([self.turn @ rotmats[:1], rotmats[1:]])
        mirrored = flip_rotmats(rotmats)
        return np.concatenate([self.turn @ np.diag([-1.0, 1.0, 1.0]) @ mirrored[:1], mirrored[1:]])

    def translation(
        self, translation: Float[np.ndarray, "3"], pelvis: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "3"]:
        """Translation of the model's origin, metres.

        Args:
          translation: of the old camera.
          pelvis: of the rest pose. The root turns about it, and it is not the origin.
        """
        return self.turn @ (translation + pelvis) - pelvis


def view_of(
    size: Int[np.ndarray, "2"],
    intrinsics: Float[np.ndarray, "3 3"] | None,
    augmentation: Augmentation,
) -> View:
    """The camera of the augmented photo.

    Args:
      size: width and height of the image, px.
      intrinsics: of the original camera (no skew), px. None: the principal point is in the middle,
        and the focal length is the one that inference assumes. With HMR's (5000 / 256 x the longer
        side) the network would learn from box information (side / focal) that inference never
        gives.
    """
    size = np.asarray(size, np.float64)
    middle = size / 2
    if intrinsics is None:
        lengths = np.full(2, camera.default_focal(*size))
        principal = middle
    else:
        lengths = intrinsics[[0, 1], [0, 1]].astype(np.float64)
        principal = intrinsics[:2, 2].astype(np.float64)
    focal = math.sqrt(lengths[0] * lengths[1])
    c, s = math.cos(augmentation.angle), math.sin(augmentation.angle)
    mirror = np.diag([-1.0 if augmentation.flip else 1.0, 1.0, 1.0])
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ mirror
    linear = turn[:2, :2] * (focal / lengths)
    affine = np.concatenate([linear, (middle - linear @ principal)[:, None]], -1)
    return View(turn, affine, focal, size)


def occlude(
    image: UInt8[np.ndarray, "S S 3"], augmentation: Augmentation
) -> tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "S S"]]:
    """Draws objects over the crop: boards, balls and bottles with stripes and shading.

    Returns:
      image: a changed copy.
      hidden: where the objects are.
    """
    random, size = np.random.default_rng(augmentation.seed), len(image)
    y, x = np.mgrid[:size, :size] + 0.5
    image, hidden = image.copy(), np.zeros((size, size), bool)
    for _ in range(augmentation.occluders):
        # 1. The object's own axes, from -1 to 1 inside it.
        centre = random.uniform(0.1, 0.9, 2) * size
        half = random.uniform(0.06, 0.25, 2) * size
        angle, kind = random.uniform(0, math.pi), random.integers(3)
        across = ((x - centre[0]) * math.cos(angle) + (y - centre[1]) * math.sin(angle)) / half[0]
        along = ((y - centre[1]) * math.cos(angle) - (x - centre[0]) * math.sin(angle)) / half[1]
        # 2. Its shape.
        board = (np.abs(across) < 1) & (np.abs(along) < 1)
        ball = across**2 + along**2 < 1
        neck = (np.abs(across) < 0.35) & (along > -1.6) & (along < 0)
        inside = (board, ball, ball | neck)[kind]
        # 3. Its colours.
        one, other = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
        wave = np.sin(random.uniform(1, 12) * along + random.uniform(0, 6))
        stripes = wave > random.uniform(-1.5, 1.5)
        shade = 1.0 - 0.35 * np.clip(across, -1, 1)
        colour = np.where(stripes[inside][:, None], one, other) * shade[inside][:, None]
        image[inside] = np.clip(colour, 0, 255).astype(np.uint8)
        hidden |= inside
    return image, hidden
