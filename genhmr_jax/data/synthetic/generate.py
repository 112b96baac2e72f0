"""One image of a synthetic person with its labels.

The body has a corpus pose, clothes and light. It is in front of a background, and sometimes behind
an occluder.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import smpl_jax
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPL24_FLIP, flip_pose

from genhmr_jax.data.synthetic import decals
from genhmr_jax.data.synthetic.appearance import Outfit, Wardrobe
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.families import APPEARANCES, TRAINING
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP, keypoint_points
from genhmr_jax.io.compiled import compiled
from genhmr_jax.render.rasterizer import rasterize, vertex_normals

SAMPLES = 2  # per pixel and axis
_TRUNK = ("nose", "left_shoulder", "right_shoulder", "left_hip", "right_hip")
_TRUNK = [DETECTED.index(name) for name in _TRUNK]
# Metres by which a visible keypoint may be behind the visible surface: joints are inside the body.
_DEPTHS = {
    "pelvis": 0.24, "hip": 0.24, "spine": 0.24,
    "neck": 0.16, "head": 0.16, "collar": 0.16, "shoulder": 0.16,
}  # fmt: skip


def _depths_inside(names: tuple[str, ...]) -> np.ndarray:
    return np.array([_DEPTHS.get(name.split("_")[-1].rstrip("123"), 0.1) for name in names])


KEYPOINT_DEPTHS = _depths_inside(DETECTED)
"""Metres by which each visible keypoint may be behind the visible surface."""


@dataclasses.dataclass(frozen=True)
class SceneSpec:
    """How scenes are sampled; angles in radians, lengths as shares of the image."""

    size: int = 320
    tilt_pitch: float = 0.15
    tilt_roll: float = 0.06
    free_rotation: float = 0.05
    focal_low: float = 0.8  # over the image diagonal
    focal_high: float = 2.5
    height_low: float = 0.5
    height_high: float = 0.92
    truncate: float = 0.12  # share of people who are partly outside of the picture
    occluder: float = 0.3


@dataclasses.dataclass(frozen=True)
class Sample:
    """An image and its labels, in camera coordinates (x right, y down, z forward, metres).

    Visibility is 1, or 0 where a point is occluded, outside of the image or behind the body.

    Attributes:
      image: uint8 (S, S, 3).
      mask: bool (S, S), the visible person.
      global_orient: (3,) axis-angle.
      body_pose: (69,) axis-angle.
      betas: (10,).
      translation: (3,).
      focal: px.
      joints: (24, 3) metres.
      joint_visibility: (24,).
      keypoints: (23, 3) px and visibility.
    """

    image: np.ndarray
    mask: np.ndarray
    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    translation: np.ndarray
    focal: float
    joints: np.ndarray
    joint_visibility: np.ndarray
    keypoints: np.ndarray


def mirrored(sample: Sample) -> Sample:
    """The mirror image, with the labels of the person in it."""
    flip = np.array([-1.0, 1.0, 1.0], np.float32)
    pose = flip_pose(np.concatenate([sample.global_orient, sample.body_pose]))
    keypoints = sample.keypoints[list(DETECTED_FLIP)]
    return dataclasses.replace(
        sample,
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        mask=np.ascontiguousarray(sample.mask[:, ::-1]),
        global_orient=pose[:3],
        body_pose=pose[3:],
        translation=sample.translation * flip,
        joints=sample.joints[list(SMPL24_FLIP)] * flip,
        joint_visibility=sample.joint_visibility[list(SMPL24_FLIP)],
        keypoints=np.concatenate([sample.image.shape[1] - keypoints[:, :1], keypoints[:, 1:]], -1),
    )


@compiled
def _composite(face_id, bary, faces, colour, picture, cover, samples):
    """Draws the person over `picture` (S, S, 3), in place.

    Vertex colours (V, 3) are interpolated at each sample and averaged over the samples of a pixel.
    face_id (S*samples, S*samples) and bary are of the rasteriser. The covered share of every pixel
    goes into cover (S, S).
    """
    share = 1.0 / (samples * samples)
    value = np.empty(3)
    for row in range(cover.shape[0]):
        for col in range(cover.shape[1]):
            count = 0
            value[:] = 0.0
            for y in range(row * samples, (row + 1) * samples):
                for x in range(col * samples, (col + 1) * samples):
                    face = face_id[y, x]
                    if face >= 0:
                        count += 1
                        for i in range(3):
                            for k in range(3):
                                value[k] += bary[y, x, i] * colour[faces[face, i], k]
            cover[row, col] = count * share
            for k in range(3):
                behind = picture[row, col, k] * (1.0 - count * share)
                picture[row, col, k] = behind + value[k] * share


@jax.jit
def pose_body(body: smpl_jax.SmplModel, betas, rotmats):
    """Vertices, joints and DETECTED keypoints."""
    output = smpl_jax.forward(body, betas, rotmats)
    return output.vertices, output.joints, keypoint_points(body, output, DETECTED)


def _root(pose: np.ndarray, spec: SceneSpec, rng: np.random.Generator) -> np.ndarray:
    """The root rotation (3, 3) in camera coordinates: the corpus pose's, changed at random.

    It is turned by any yaw and tilted a little, or, rarely, turned by any rotation.
    """
    corpus = Rotation.from_rotvec(pose[:3])
    yaw = Rotation.from_euler("y", rng.uniform(-np.pi, np.pi))
    pitch, roll = rng.normal(0, spec.tilt_pitch), rng.normal(0, spec.tilt_roll)
    tilt = Rotation.from_euler("xz", [pitch, roll])
    turn = Rotation.random(random_state=rng) if rng.random() < spec.free_rotation else tilt * yaw
    return (Rotation.from_euler("x", np.pi) * turn * corpus).as_matrix()


def _place(
    points: np.ndarray, keypoints: np.ndarray, spec: SceneSpec, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Translation (3,) metres and focal length (px) for a random size and location of the body.

    The body is close to the middle, or cut by the border.
    """
    size = spec.size
    log_focal = rng.uniform(np.log(spec.focal_low), np.log(spec.focal_high))
    focal = float(np.exp(log_focal) * size * np.sqrt(2))
    share = rng.uniform(spec.height_low, spec.height_high)
    cut = rng.random() < spec.truncate
    share *= rng.uniform(1.3, 2.4) if cut else 1.0
    extent = np.ptp(points[:, :2], axis=0).max()
    depth = focal * extent / (share * size) - np.quantile(points[:, 2], 0.1)
    depth = max(depth, 0.4 - points[:, 2].min())
    if cut:  # the trunk or the head is in the middle, as in photographs
        middle = keypoints[rng.choice(_TRUNK), :2]
    else:
        middle = (points[:, :2].max(0) + points[:, :2].min(0)) / 2
    free = 0.15 if cut else max(0.5 - share / 2, 0.02)
    shift = rng.uniform(-free, free, 2) * size / focal * depth
    return np.array([*(shift - middle), depth]), focal


def _occlude(
    picture: np.ndarray, cover: np.ndarray, texture: np.ndarray, rng: np.random.Generator
) -> None:
    """Draws an object in front of the person, in place.

    It is a board, a ball, a bottle, a pole or a table. Its surface is a piece of a background.
    """
    # 1. Draw its kind, location and size.
    size = len(cover)
    half = rng.uniform(0.04, 0.2, 2) * size
    centre, angle = rng.uniform(0.1, 0.9, 2) * size, rng.uniform(0, np.pi)
    kind = rng.choice(["board", "board", "ball", "bottle", "pole", "table"])
    if kind == "pole":
        angle = rng.normal(0, 0.05)
        half = size * np.array([rng.uniform(0.015, 0.05), 2.0])
    elif kind == "table":
        angle = rng.normal(0, 0.05)
        half = size * np.array([rng.uniform(0.2, 1.0), rng.uniform(0.05, 0.25)])
        centre[1] = size * rng.uniform(0.75, 1.0)
    # 2. Its pixels, in its own axes from -1 to 1.
    y, x = np.mgrid[:size, :size] + 0.5
    across = ((x - centre[0]) * np.cos(angle) + (y - centre[1]) * np.sin(angle)) / half[0]
    along = ((y - centre[1]) * np.cos(angle) - (x - centre[0]) * np.sin(angle)) / half[1]
    inside = across**2 + along**2 < 1
    if kind == "bottle":
        inside |= (np.abs(across) < 0.35) & (along > -1.7) & (along < 0)
    elif kind != "ball":
        inside = (np.abs(across) < 1) & (np.abs(along) < 1)
    # 3. Its surface.
    shade = 1.0
    if kind in ("ball", "bottle", "pole"):
        shade = (1.0 - 0.3 * np.clip(across, -1, 1))[..., None]
    surface = np.roll(texture, rng.integers(0, size, 2), (0, 1)) * shade
    picture[inside] = np.clip(surface, 0, 1)[inside]
    cover[inside] = 0.0


@dataclasses.dataclass(frozen=True)
class Dressed:
    """A person with clothes, who is drawn in any pose.

    Attributes:
      outfit: of the person.
      charts: of its decals, `Wardrobe.charts`.
      faces: (F, 3) of the body.
    """

    outfit: Outfit
    charts: decals.Charts
    faces: np.ndarray

    def paint(
        self,
        vertices: np.ndarray,
        translation: np.ndarray,
        focal: float,
        ground: np.ndarray,
        light: Callable[[np.ndarray], np.ndarray],
        draw: Callable = rasterize,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws the person in front of a background.

        Args:
          vertices: (V, 3) of the posed body without clothes, metres.
          translation: (3,) metres.
          focal: px.
          ground: (S, S, 3) the background, 0..1.
          light: (V, 3) irradiance of normals (V, 3).
          draw: rasterizer.rasterize, or device_rasterizer.rasterize.

        Returns:
          the picture (S, S, 3); the covered share of each pixel (S, S); the depth of the clothes
          (S, S), metres.
        """
        # Clothes are offset along the posed normals by their thickness at rest, which is exact but
        # for the stretching of the skin. Wrinkles change the light on the cloth, but not its
        # outline.
        size, s, outfit = len(ground), SAMPLES, self.outfit
        normals = vertex_normals(vertices, self.faces)
        clothed = vertices + normals * np.linalg.norm(outfit.offset, axis=-1, keepdims=True)
        wrinkled = vertex_normals(clothed + normals * outfit.wrinkles[:, None], self.faces)
        shading = light(wrinkled)
        drawn = draw(clothed + translation, self.faces, focal * s, size * s, size * s)
        face_id, depth, bary = drawn
        picture, cover = ground.copy(), np.zeros((size, size), np.float32)
        if outfit.decals is None:
            colour = np.clip(outfit.albedo * shading, 0, 1) ** (1 / 2.2)
            _composite(face_id, bary, self.faces, colour, picture, cover, s)
        else:
            surface = (outfit.decals, (face_id, bary), self.faces, outfit.albedo, shading)
            decals.composite(self.charts, *surface, picture, cover, s)
        return picture, cover, depth[::s, ::s]


def render_sample(
    body: smpl_jax.SmplModel,
    wardrobe: Wardrobe,
    pose: np.ndarray,
    rng: np.random.Generator,
    backgrounds: Backgrounds,
    spec: SceneSpec = SceneSpec(),
    draw: Callable = rasterize,
    appearance: str = TRAINING,
) -> Sample:
    """Renders one sample, a function of its arguments and the state of `rng`.

    Args:
      body: a full body model.
      wardrobe: `Wardrobe.of(body)`.
      pose: (72,) axis-angle, y up.
      draw: rasterizer.rasterize, or device_rasterizer.rasterize.
      appearance: a key of families.APPEARANCES.
    """
    # 1. The body and its clothes.
    size, look = spec.size, APPEARANCES[appearance]
    rotmats = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    rotmats[0] = _root(pose, spec, rng)
    betas = np.clip(rng.normal(size=10), -3, 3)
    outfit = look.dress(wardrobe, rng)
    posed = pose_body(body, betas.astype(np.float32), rotmats.astype(np.float32))
    vertices, joints, keypoints = (np.asarray(x, np.float64) for x in posed)
    translation, focal = _place(vertices, keypoints, spec, rng)

    # 2. The picture.
    ground, known = backgrounds.draw(rng, size, look.scenery)
    ambient = ground.mean((0, 1)).astype(np.float64)
    person = Dressed(outfit, wardrobe.charts, np.asarray(body.faces, np.int64))
    picture, cover, surface = person.paint(
        vertices,
        translation,
        focal,
        ground,
        lambda normals: look.light(normals, rng, ambient, known),
        draw,
    )
    if rng.random() < spec.occluder:
        _occlude(picture, cover, backgrounds.draw(rng, size, look.scenery)[0], rng)

    # 3. The labels.
    keypoints, joints = keypoints + translation, joints + translation
    pixels, visible = seen(keypoints, KEYPOINT_DEPTHS, focal, cover, surface)
    _, visible_joints = seen(joints, _depths_inside(SMPL24), focal, cover, surface)
    return Sample(
        image=look.noise(picture, rng),
        mask=cover > 0.5,
        global_orient=Rotation.from_matrix(rotmats[0]).as_rotvec().astype(np.float32),
        body_pose=pose[3:].astype(np.float32),
        betas=betas.astype(np.float32),
        translation=translation.astype(np.float32),
        focal=focal,
        joints=joints.astype(np.float32),
        joint_visibility=visible_joints.astype(np.float32),
        keypoints=np.concatenate([pixels, visible[:, None]], -1).astype(np.float32),
    )


def seen(
    points: np.ndarray, depths: np.ndarray, focal: float, cover: np.ndarray, surface: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where points are in a picture, and which are visible.

    Args:
      points: (K, 3) camera coordinates, metres; the principal point is the middle of the picture.
      depths: (K,) metres by which a visible point may be behind the visible surface.
      focal: px.
      cover: (S, S) the share of each pixel that the person covers.
      surface: (S, S) depth of the person, metres.

    Returns:
      (K, 2) px; (K,) 1 for points inside of the picture, on the person, and not behind the visible
      surface, else 0.
    """
    size = len(cover)
    pixels = points[:, :2] / points[:, 2:] * focal + size / 2
    inside = np.all((pixels >= 0) & (pixels < size), -1)
    col, row = np.clip(pixels.astype(int), 0, size - 1).T
    nearest = np.where(np.isfinite(surface[row, col]), surface[row, col], np.inf)
    visible = inside & (cover[row, col] > 0.5) & (points[:, 2] - depths < nearest)
    return pixels, visible.astype(np.float64)
