"""Augmentation of a photo of a person: one change of the camera, and everything that follows from it for the image and every label.

A photo turned by an angle is what a camera turned about its optical axis sees, a mirrored photo is a mirrored world: so the labels of
the changed photo are exact. Numbers as in HMR2 (Goel et al. 2023) and TokenHMR (Dwivedi et al. 2024); occluders are ours.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from smpl_jax.keypoints import BODY44, flip_rotmats

from genhmr_jax import camera


@dataclasses.dataclass(frozen=True)
class AugmentSpec:
    """How strongly photos are changed. N is a normal number."""

    scale: float = 0.3  # side of the crop x (1 + scale clip(N, -1, 1))
    rotation: float = 30.0  # degrees: angle = rotation clip(N, -2, 2), ...
    rotate: float = 0.6  # ... in this share of the samples
    shift: float = 0.02  # of the crop's side: shift clip(N, -1, 1), across and down
    flip: float = 0.5
    colour: float = 0.2  # each channel x U(1 - colour, 1 + colour)
    extreme_crop: float = 0.1  # share of samples cut down to a part of the body
    occlude: float = 0.1  # share of samples with made-up objects before the person; 0 in HMR2


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is done to one sample; without arguments, nothing."""

    scale: float = 1.0
    angle: float = 0.0  # radians; the content turns clockwise as seen (x towards y)
    shift: tuple[float, float] = (0.0, 0.0)  # of the crop's side
    flip: bool = False
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    part: str = ""  # of PARTS
    occluders: int = 0
    seed: int = 0  # of the occluders' looks


def _side(side: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names)


_HEAD = ("nose", "neck", "left_eye", "right_eye", "left_ear", "right_ear", "neck_lsp", "head_top_lsp", "jaw_h36m", "head_h36m")
_TORSO = (
    "left_shoulder",
    "right_shoulder",
    "left_hip",
    "right_hip",
    "mid_hip",
    "neck",
    "neck_lsp",
    "pelvis_mpii",
    "thorax_mpii",
    "spine_h36m",
)
_ARM, _LEG = ("shoulder", "elbow", "wrist"), ("hip", "knee", "ankle", "big_toe", "small_toe", "heel")
_ARMS, _LEGS = _side("left", *_ARM) + _side("right", *_ARM), _side("left", *_LEG) + _side("right", *_LEG)
PARTS: dict[str, tuple[float, tuple[str, ...]]] = {
    "to_hips": (0.2, _HEAD + _TORSO + _ARMS),
    "to_shoulders": (0.1, _HEAD + ("left_shoulder", "right_shoulder", "thorax_mpii")),
    "head": (0.1, _HEAD),
    "torso": (0.1, _TORSO),
    "right_arm": (0.1, _side("right", *_ARM)),
    "left_arm": (0.1, _side("left", *_ARM)),
    "legs": (0.1, _LEGS + ("mid_hip", "pelvis_mpii")),
    "right_leg": (0.1, _side("right", *_LEG)),
    "left_leg": (0.1, _side("left", *_LEG)),
}
"""Extreme crops: share among them, and the keypoints that stay in."""

_IN_PART = {part: np.array([name.removeprefix("openpose_") in names for name in BODY44]) for part, (_, names) in PARTS.items()}
_SMALLEST_PART = 0.125  # of the whole crop's side: what is smaller (two keypoints of a head seen from above) says nothing


def draw(spec: AugmentSpec, seed: int, number: int) -> Augmentation:
    """The augmentation of the sample with this global number: a function of its arguments alone."""
    random = np.random.default_rng((seed, number))
    normal, uniform = random.standard_normal(4), random.random(8)
    shares = np.cumsum([share for share, _ in PARTS.values()])
    part = list(PARTS)[min(int(np.searchsorted(shares, uniform[6] * shares[-1], side="right")), len(PARTS) - 1)]
    return Augmentation(
        scale=1.0 + spec.scale * float(np.clip(normal[0], -1, 1)),
        angle=math.radians(spec.rotation) * float(np.clip(normal[1], -2, 2)) * (uniform[0] < spec.rotate),
        shift=tuple(spec.shift * np.clip(normal[2:4], -1, 1)),
        flip=bool(uniform[1] < spec.flip),
        colour=tuple(1.0 + spec.colour * (2 * uniform[2:5] - 1)),
        part=part if uniform[5] < spec.extreme_crop else "",
        occluders=int(random.integers(1, 4)) if uniform[7] < spec.occlude else 0,
        seed=int(random.integers(2**31)),
    )


def crop_square(box: Float[np.ndarray, "4"], keypoints: Float[np.ndarray, "44 3"], augmentation: Augmentation) -> Float[np.ndarray, "3"]:
    """Centre and side of the augmented crop in the original image, px, before turning and mirroring.

    Args:
      box: of the person, xyxy px.
      keypoints: BODY44, px and confidence: what an extreme crop is cut from. If too few are known, the box stays whole.
    """
    square = camera.square_around(box)
    if augmentation.part:
        seen = keypoints[_IN_PART[augmentation.part] & (keypoints[:, 2] > 0), :2]
        if len(seen) >= 2:
            low, high = seen.min(0), seen.max(0)
            middle, half = (low + high) / 2, 0.6 * (high - low)  # a margin of 20 %
            part = camera.square_around(np.concatenate([middle - half, middle + half]))
            square = part if part[2] >= _SMALLEST_PART * square[2] else square
    square[:2] += square[2] * np.asarray(augmentation.shift)
    square[2] *= augmentation.scale
    return square


@dataclasses.dataclass(frozen=True)
class View:
    """The camera of the augmented photo, and how what the old camera saw turns into what this one sees.

    It has square pixels and its principal point is the image's middle, whatever the original camera was: pixel = focal X/Z + size / 2.

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
        return bool(self.turn[0, 0] * self.turn[1, 1] < self.turn[0, 1] * self.turn[1, 0])  # it only turns about the z axis

    def pixels(self, points: Float[np.ndarray, "*k 2"]) -> Float[np.ndarray, "*k 2"]:
        """Old px -> new px."""
        return points @ self.affine[:, :2].T + self.affine[:, 2]

    def crop(self, square: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        """A square of the old image -> centre and side (px) of the upright crop around it in the new one."""
        scale = math.sqrt(abs(np.linalg.det(self.affine[:, :2])))
        return np.append(self.pixels(square[:2]), scale * square[2])

    def crop_matrix(self, crop: Float[np.ndarray, "3"], size: int) -> Float[np.ndarray, "2 3"]:
        """What data/warp.py needs to cut an upright crop of the new image out of the old one: crop px -> old px."""
        step = crop[2] / size
        back = np.linalg.inv(self.affine[:, :2])
        return np.concatenate([step * back, (back @ (crop[:2] - crop[2] / 2 - self.affine[:, 2]))[:, None]], -1)

    def labels(self, points: Float[np.ndarray, "K C"], flip: Int[np.ndarray, "K"]) -> Float[np.ndarray, "K C"]:
        """Keypoints with a confidence in the last column, (K, 3) px or (K, 4) metres. `flip`: left/right permutation, used if mirrored.

        Unknown points (confidence 0) stay zero.
        """
        moved = self.pixels(points[:, :2]) if points.shape[1] == 3 else points[:, :3] @ self.turn.T
        changed = np.concatenate([np.where(points[:, -1:] > 0, moved, 0.0), points[:, -1:]], -1)
        return changed[np.asarray(flip)] if self.mirrored else changed

    def rotmats(self, rotmats: Float[np.ndarray, "24 3 3"]) -> Float[np.ndarray, "24 3 3"]:
        """Joint rotations, the root in camera coordinates. Mirroring changes sides and conjugates; turning concerns the root alone."""
        if not self.mirrored:
            return np.concatenate([self.turn @ rotmats[:1], rotmats[1:]])
        mirrored = flip_rotmats(rotmats)
        return np.concatenate([self.turn @ np.diag([-1.0, 1.0, 1.0]) @ mirrored[:1], mirrored[1:]])

    def translation(self, translation: Float[np.ndarray, "3"], pelvis: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
        """Of the model's origin, metres. The root turns about the `pelvis` of the rest pose, which is not the origin: it must be told."""
        return self.turn @ (translation + pelvis) - pelvis


def view_of(size: Int[np.ndarray, "2"], intrinsics: Float[np.ndarray, "3 3"] | None, augmentation: Augmentation) -> View:
    """The camera of the augmented photo.

    Args:
      size: width and height of the image, px.
      intrinsics: of the original camera (no skew), px. None: the principal point is in the middle, and the focal length is the one
        that inference assumes. HMR's (5000 / 256 x the longer side) would teach the network a box information (side / focal) that it never
        meets again.
    """
    size = np.asarray(size, np.float64)
    middle = size / 2
    if intrinsics is None:
        lengths, principal = np.full(2, camera.default_focal(*size)), middle
    else:
        lengths, principal = intrinsics[[0, 1], [0, 1]].astype(np.float64), intrinsics[:2, 2].astype(np.float64)
    focal = math.sqrt(lengths[0] * lengths[1])
    c, s = math.cos(augmentation.angle), math.sin(augmentation.angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-1.0 if augmentation.flip else 1.0, 1.0, 1.0])
    linear = turn[:2, :2] * (focal / lengths)
    return View(turn, np.concatenate([linear, (middle - linear @ principal)[:, None]], -1), focal, size)


def occlude(image: UInt8[np.ndarray, "S S 3"], augmentation: Augmentation) -> tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "S S"]]:
    """Paints made-up objects over the crop: boards, balls and bottles with stripes and shading.

    Returns:
      image: a changed copy.
      hidden: where the objects are.
    """
    random, size = np.random.default_rng(augmentation.seed), len(image)
    y, x = np.mgrid[:size, :size] + 0.5
    image, hidden = image.copy(), np.zeros((size, size), bool)
    for _ in range(augmentation.occluders):
        centre, half = random.uniform(0.1, 0.9, 2) * size, random.uniform(0.06, 0.25, 2) * size
        angle, kind = random.uniform(0, math.pi), random.integers(3)
        across = ((x - centre[0]) * math.cos(angle) + (y - centre[1]) * math.sin(angle)) / half[0]
        along = ((y - centre[1]) * math.cos(angle) - (x - centre[0]) * math.sin(angle)) / half[1]
        board, ball = (np.abs(across) < 1) & (np.abs(along) < 1), across**2 + along**2 < 1
        neck = (np.abs(across) < 0.35) & (along > -1.6) & (along < 0)
        inside = (board, ball, ball | neck)[kind]
        one, other = random.uniform(0, 255, 3), random.uniform(0, 255, 3)
        stripes = np.sin(random.uniform(1, 12) * along + random.uniform(0, 6)) > random.uniform(-1.5, 1.5)
        shade = 1.0 - 0.35 * np.clip(across, -1, 1)
        colour = np.where(stripes[inside][:, None], one, other) * shade[inside][:, None]
        image[inside] = np.clip(colour, 0, 255).astype(np.uint8)
        hidden |= inside
    return image, hidden
