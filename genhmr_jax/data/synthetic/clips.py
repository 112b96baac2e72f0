"""Rendered clips: one person in motion before a camera that rests, with labels of each frame.

The person, the clothes, the light, the background and the camera stay as they are. The pose, the
position, and in some clips an object in front of the person, move.
"""

import dataclasses

import numpy as np
import smpl_jax
from jaxtyping import Bool, Float, UInt8
from scipy.spatial.transform import Rotation

from genhmr_jax.data.synthetic.appearance import Wardrobe
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.families import APPEARANCES, TRAINING
from genhmr_jax.data.synthetic.generate import KEYPOINT_DEPTHS, Dressed, pose_body, seen
from genhmr_jax.data.synthetic.motions import walked

_CAMERAS = 100  # that are tried for one in which the person stays in the picture
_INSIDE = 0.97  # share of the keypoints of all frames that a camera must have in the picture


@dataclasses.dataclass(frozen=True)
class ClipSpec:
    """How clips are sampled; angles in radians.

    Attributes:
      width, height: px; the width is the longer side.
      rate: frames a second.
      tilt_pitch, tilt_roll: standard deviations of the camera's.
      focal_low, focal_high: over the image diagonal.
      share_low, share_high: height of the standing person over that of the picture.
      occluder: share of clips with an object that passes in front of the person.
      passage_low, passage_high: seconds that the object takes to pass the person.
    """

    width: int = 480
    height: int = 360
    rate: float = 30.0
    tilt_pitch: float = 0.1
    tilt_roll: float = 0.04
    focal_low: float = 0.8
    focal_high: float = 2.5
    share_low: float = 0.45
    share_high: float = 0.8
    occluder: float = 0.5
    passage_low: float = 0.5
    passage_high: float = 1.0


@dataclasses.dataclass(frozen=True)
class RenderedClip:
    """F frames of one person and their labels, in camera coordinates as those of generate.Sample.

    Attributes:
      frames: F pictures, uint8 (H, W, 3).
      times: (F,) seconds from 0.
      masks: (F, H, W) the visible person.
      global_orient: (F, 3), body_pose: (F, 69) axis-angle, radians.
      betas: (10,).
      translation: (F, 3) metres, of the model origin.
      joints: (F, 24, 3) metres.
      keypoints: (F, 23, 3) px, and visibility 0 or 1, in the order of DETECTED.
      focal: px; the principal point is the middle of the picture.
      occluded: whether an object passes in front of the person.
    """

    frames: list[UInt8[np.ndarray, "H W 3"]]
    times: Float[np.ndarray, "F"]
    masks: Bool[np.ndarray, "F H W"]
    global_orient: Float[np.ndarray, "F 3"]
    body_pose: Float[np.ndarray, "F 69"]
    betas: Float[np.ndarray, "10"]
    translation: Float[np.ndarray, "F 3"]
    joints: Float[np.ndarray, "F 24 3"]
    keypoints: Float[np.ndarray, "F 23 3"]
    focal: float
    occluded: bool


def render_clip(
    body: smpl_jax.SmplModel,
    wardrobe: Wardrobe,
    poses: Float[np.ndarray, "F 24 3"],
    rng: np.random.Generator,
    backgrounds: Backgrounds,
    spec: ClipSpec = ClipSpec(),
    appearance: str = TRAINING,
) -> RenderedClip:
    """Renders a motion, a function of its arguments and the state of `rng`.

    Args:
      body: a full body model.
      wardrobe: `Wardrobe.of(body)`.
      poses: axis-angle, y up, at spec.rate frames a second (motions.Sequence.sampled).
      appearance: a key of families.APPEARANCES.
    """
    # 1. The person and the path.
    look = APPEARANCES[appearance]
    betas = np.clip(rng.normal(size=10), -3, 3).astype(np.float32)
    outfit = look.dress(wardrobe, rng)
    person = Dressed(outfit, wardrobe.charts, np.asarray(body.faces, np.int64))
    rotmats = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    world = [_posed(body, betas, rotmat)[1:] for rotmat in rotmats]
    points = np.stack([np.concatenate(both) for both in world])  # joints, then keypoints
    path = walked(points, 1 / spec.rate)
    tall = float(np.ptp(wardrobe.rest[:, 1]))

    # 2. The camera. The root turns about the pelvis, which is not the model origin.
    turn, shift, focal = _camera(points + path[:, None], tall, spec, rng)
    pelvis = points[:, 0]
    translations = (pelvis + path) @ turn.T + shift - pelvis
    rotmats[:, 0] = turn @ rotmats[:, 0]

    # 3. What stays as it is.
    size = spec.width  # pictures are square until they are cut
    ground, known = backgrounds.draw(rng, size, look.scenery)
    ambient = ground.mean((0, 1)).astype(np.float64)
    light_seed, camera_seed = rng.integers(1 << 32, size=2)
    occluded = bool(rng.random() < spec.occluder)
    texture = backgrounds.draw(rng, size, look.scenery)[0]
    object_in_front = _Passing.draw(points @ turn.T, translations, focal, spec, rng)

    # 4. The frames.
    frames, masks, joints, keypoints = [], [], [], []
    top = (size - spec.height) // 2
    window = slice(top, top + spec.height)
    for i, (rotmat, translation) in enumerate(zip(rotmats, translations, strict=True)):
        vertices, of_joints, of_keypoints = _posed(body, betas, rotmat)
        light = np.random.default_rng(light_seed)
        picture, cover, surface = person.paint(
            vertices,
            translation,
            focal,
            ground,
            lambda normals, light=light: look.light(normals, light, ambient, known),
        )
        if occluded:
            object_in_front.paint(i, picture, cover, texture)
        of_keypoints = of_keypoints + translation
        pixels, visible = seen(of_keypoints, KEYPOINT_DEPTHS, focal, cover, surface)
        pixels = pixels - [0, top]
        visible = visible * ((pixels[:, 1] >= 0) & (pixels[:, 1] < spec.height))
        noisy = look.noise(picture, _CameraDraws(camera_seed, rng))
        frames.append(np.ascontiguousarray(noisy[window]))
        masks.append(cover[window] > 0.5)
        joints.append(of_joints + translation)
        keypoints.append(np.concatenate([pixels, visible[:, None]], -1))
    roots = Rotation.from_matrix(rotmats[:, 0]).as_rotvec()
    return RenderedClip(
        frames=frames,
        times=np.arange(len(poses)) / spec.rate,
        masks=np.stack(masks),
        global_orient=roots.astype(np.float32),
        body_pose=poses[:, 1:].reshape(-1, 69).astype(np.float32),
        betas=betas,
        translation=translations.astype(np.float32),
        joints=np.stack(joints).astype(np.float32),
        keypoints=np.stack(keypoints).astype(np.float32),
        focal=focal,
        occluded=occluded,
    )


def _posed(
    body: smpl_jax.SmplModel, betas: np.ndarray, rotmats: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, joints and keypoints of a pose, float64."""
    posed = pose_body(body, betas, rotmats.astype(np.float32))
    return tuple(np.asarray(x, np.float64) for x in posed)


def _camera(
    points: np.ndarray, tall: float, spec: ClipSpec, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, float]:
    """A camera for a motion: the first of some random ones that sees almost all of it.

    If there is none, it is the one that sees most.

    Args:
      points: (F, K, 3) in the world, y up, metres.
      tall: height of the person, metres.

    Returns:
      the rotation (3, 3) and the shift (3,) metres from the world to the camera; focal length, px.
    """
    width, height = spec.width, spec.height
    best, chosen = -1.0, None
    middle = (points.min((0, 1)) + points.max((0, 1))) / 2
    for _ in range(_CAMERAS):
        pitch, roll = rng.normal(0, spec.tilt_pitch), rng.normal(0, spec.tilt_roll)
        angles = Rotation.from_euler("xz", [pitch, roll])
        yaw = Rotation.from_euler("y", rng.uniform(-np.pi, np.pi))
        turn = (Rotation.from_euler("x", np.pi) * angles * yaw).as_matrix()
        log_focal = rng.uniform(np.log(spec.focal_low), np.log(spec.focal_high))
        focal = float(np.exp(log_focal) * np.hypot(width, height))
        share = rng.uniform(spec.share_low, spec.share_high)
        depth = focal * tall / (share * height)
        aside = rng.uniform(-0.2, 0.2, 2) * [width, (1 - share) * height] / focal * depth
        shift = np.array([*aside, depth]) - turn @ middle
        seen_from = points @ turn.T + shift
        z = np.maximum(seen_from[..., 2], 1e-3)
        pixels = seen_from[..., :2] / z[..., None] * focal + np.array([width, height]) / 2
        inside = ((pixels > 0) & (pixels < [width, height])).all(-1) & (z > 1.0)
        if inside.mean() > best:
            best, chosen = float(inside.mean()), (turn, shift, focal)
        if best >= _INSIDE:
            break
    return chosen


class _CameraDraws:
    """Random numbers for the noise of a frame: settings of the camera stay, its noise does not.

    Families of noise draw their settings from uniform distributions, and what differs between
    pixels from normal ones.
    """

    def __init__(self, seed: int, noise: np.random.Generator):
        self.uniform = np.random.default_rng(seed).uniform
        self.normal = noise.normal


@dataclasses.dataclass(frozen=True)
class _Passing:
    """An object that passes in front of the person on a straight line.

    Attributes:
      centres: (F, 2) px in the square picture.
      half: (2,) half of its width and height, px.
      angle: radians.
      round: whether it is an ellipse, else a board.
    """

    centres: np.ndarray
    half: np.ndarray
    angle: float
    round: bool

    @staticmethod
    def draw(
        points: np.ndarray,
        translations: np.ndarray,
        focal: float,
        spec: ClipSpec,
        rng: np.random.Generator,
    ) -> "_Passing":
        """A random object that is in front of the person at a random time in the middle.

        points: (F, K, 3) in the axes of the camera, without the translations (F, 3).
        """
        count = len(points)
        placed = points + translations[:, None]
        at = int(count * rng.uniform(0.3, 0.7))
        pixels = placed[at, :, :2] / placed[at, :, 2:] * focal + spec.width / 2
        low, high = pixels.min(0), pixels.max(0)
        wide, tall = high - low
        half = np.array([rng.uniform(0.1, 0.25), rng.uniform(0.25, 0.6)]) * max(tall, wide)
        seconds = rng.uniform(spec.passage_low, spec.passage_high)
        speed = rng.choice([-1.0, 1.0]) * (wide + 2 * half[0]) / (seconds * spec.rate)
        aim = (low + high) / 2 + [0, rng.uniform(-0.3, 0.3) * tall]
        velocity = np.array([speed, rng.normal(0, 0.1) * abs(speed)])
        centres = aim + velocity * (np.arange(count) - at)[:, None]
        return _Passing(centres, half, rng.normal(0, 0.2), bool(rng.random() < 0.4))

    def paint(
        self, frame: int, picture: np.ndarray, cover: np.ndarray, texture: np.ndarray
    ) -> None:
        """Draws it over a picture (S, S, 3) and its cover (S, S), in place.

        texture: (S, S, 3), which moves with the object.
        """
        size, (x0, y0) = len(cover), self.centres[frame]
        y, x = np.mgrid[:size, :size] + 0.5
        cosine, sine = np.cos(self.angle), np.sin(self.angle)
        across = ((x - x0) * cosine + (y - y0) * sine) / self.half[0]
        along = ((y - y0) * cosine - (x - x0) * sine) / self.half[1]
        inside = (np.abs(across) < 1) & (np.abs(along) < 1)
        if self.round:
            inside = across**2 + along**2 < 1
        column, row = ((at + size / 2).astype(int) % size for at in (x - x0, y - y0))
        picture[inside] = texture[row[inside], column[inside]]
        cover[inside] = 0.0
