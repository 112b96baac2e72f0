"""One picture of a right hand with its forearm, and exact labels.

The hand has skin, light, a background and sometimes an object in it or a patch in front of it. Left
hands need no pictures: they are recovered in the mirror image, in which they are right hands.
"""

import dataclasses
import io

import jax
import numpy as np
import smpl_jax
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageFilter
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel

from genhmr_jax.data.hands.looks import (
    Appearance,
    HandSurface,
    Sleeve,
    cloth,
    draw_appearance,
    grid_faces,
    surface_of,
)
from genhmr_jax.data.hands.objects import draw_patches, held_object, scenery
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.data.synthetic.light import light_body
from genhmr_jax.geometry.hand import hand_keypoints
from genhmr_jax.io.compiled import compiled
from genhmr_jax.render.rasterizer import rasterize, vertex_normals

SAMPLES = 2  # per pixel and axis
NEAR = 0.02  # metres: closer parts are clipped
NEAREST = 0.12  # metres from the camera to the hand at least


@dataclasses.dataclass(frozen=True)
class HandCamera:
    """The camera of a picture.

    Attributes:
      translation: (3,) of the hand, metres.
      focal: px.
      centre: (2,) principal point, px; outside of the middle if the picture is cut from a photo.
      size: of the picture, px.
    """

    translation: Float[np.ndarray, "3"]
    focal: float
    centre: Float[np.ndarray, "2"]
    size: int

    def project(self, points: Float[np.ndarray, "K 3"]) -> Float[np.ndarray, "K 2"]:
        """Px of points relative to the hand's origin, metres, in the axes of the camera."""
        moved = points + self.translation
        return moved[:, :2] / moved[:, 2:] * self.focal + self.centre


@dataclasses.dataclass(frozen=True)
class HandPictureSpec:
    """How pictures are sampled; lengths as shares of the picture, the field of view in degrees."""

    size_low: int = 256
    size_high: int = 320
    fov_low: float = 20.0
    fov_high: float = 70.0
    part: float = 0.5  # probability that the picture is a part of a larger photo
    larger: float = 4.0  # side of that photo at most
    small: float = 0.15  # probability of a small hand
    shares: tuple[float, float, float] = (0.12, 0.35, 0.8)  # extent: smallest, small, largest
    cut: float = 0.06  # probability that the hand may be partly outside
    patch: float = 0.1  # probability of patches over the picture
    pose_noise: float = 0.03  # radians, added to each finger joint


@dataclasses.dataclass(frozen=True)
class HandSample:
    """A picture and its labels; metres in the axes of the camera, x right, y down, z forward.

    Attributes:
      image: uint8 (H, W, 3).
      mask: (H, W) pixels of the visible hand, without the forearm; empty for a photo.
      pose: (48,) axis-angle, radians, the wrist's in the axes of the camera.
      betas: (10,).
      camera: of the picture.
      joints: (16, 3) relative to the hand's origin.
      keypoints: (21, 3) in the order of HAND21, relative to the hand's origin.
      points2d: (21, 2) px.
    """

    image: UInt8[np.ndarray, "H W 3"]
    mask: Bool[np.ndarray, "H W"]
    pose: Float[np.ndarray, "48"]
    betas: Float[np.ndarray, "10"]
    camera: HandCamera
    joints: Float[np.ndarray, "16 3"]
    keypoints: Float[np.ndarray, "21 3"]
    points2d: Float[np.ndarray, "21 2"]


def draw_sample(
    hand: SmplModel,
    pose: Float[np.ndarray, "48"],
    rng: np.random.Generator,
    backgrounds: Backgrounds,
    spec: HandPictureSpec = HandPictureSpec(),
) -> HandSample:
    """A picture of a corpus pose from any direction, a function of its arguments and `rng`'s state.

    Args:
      hand: a right hand, load_hand().
      pose: axis-angle, radians, wrist first; the direction of view is drawn.

    Raises:
      ValueError: a left hand.
    """
    pose = pose.astype(np.float64).reshape(16, 3)
    turn = Rotation.random(random_state=rng) * Rotation.from_rotvec(pose[0])
    noise_ = Rotation.from_rotvec(rng.normal(0, spec.pose_noise, (15, 3)))
    fingers = (Rotation.from_rotvec(pose[1:]) * noise_).as_rotvec()
    pose = np.concatenate([turn.as_rotvec()[None], fingers]).astype(np.float32).ravel()
    betas = np.clip(rng.normal(size=hand.num_betas), -3, 3).astype(np.float32)
    vertices, joints, keypoints = posed(hand, pose, betas)
    camera = draw_camera(vertices, rng, spec)
    ground = backgrounds.draw(rng, camera.size, scenery)
    appearance = draw_appearance(surface_of(hand), rng)
    image, mask = _picture(hand, pose, (vertices, keypoints), camera, appearance, ground, spec)
    points2d = camera.project(keypoints)
    return HandSample(image, mask, pose, betas, camera, joints, keypoints, points2d)


def render_hand(
    hand: SmplModel,
    pose: Float[np.ndarray, "48"],
    betas: Float[np.ndarray, "10"],
    camera: HandCamera,
    appearance: Appearance,
    background: tuple[Float[np.ndarray, "S S 3"], Float[np.ndarray, "9 3"] | None],
    spec: HandPictureSpec = HandPictureSpec(),
) -> UInt8[np.ndarray, "S S 3"]:
    """The picture of a hand, a function of its arguments.

    Args:
      hand: a right hand, load_hand().
      pose: axis-angle, radians, the wrist's in the axes of the camera.
      background: picture in 0..1 and light, as of Backgrounds.draw.

    Raises:
      ValueError: a left hand.
    """
    vertices, _, keypoints = posed(hand, pose, betas)
    scene = (camera, appearance, background, spec)
    return _picture(hand, pose, (vertices, keypoints), *scene)[0]


def posed(
    hand: SmplModel, pose: Float[np.ndarray, "48"], betas: Float[np.ndarray, "10"]
) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, "16 3"], Float[np.ndarray, "21 3"]]:
    """Vertices, joints and keypoints, metres from the hand's origin."""
    values = _posed(hand, np.float32(betas), np.float32(pose).reshape(16, 3))
    vertices, joints, keypoints = (np.asarray(value, np.float64) for value in values)
    return vertices, joints, keypoints


@jax.jit
def _posed(hand: SmplModel, betas, pose):
    output = smpl_jax.forward(hand, betas, pose)
    return output.vertices, output.joints, hand_keypoints(hand, output)


def draw_camera(
    vertices: Float[np.ndarray, "V 3"], rng: np.random.Generator, spec: HandPictureSpec
) -> HandCamera:
    """A camera that sees a hand (metres, axes of the camera) at a random size and place."""
    size = int(rng.integers(spec.size_low, spec.size_high + 1))
    photo = size * (rng.uniform(1.0, spec.larger) if rng.random() < spec.part else 1.0)
    fov = np.radians(rng.uniform(spec.fov_low, spec.fov_high))
    focal = float(photo / 2 / np.tan(fov / 2))
    centre = size / 2 + rng.uniform(-0.5, 0.5, 2) * (photo - size)
    smallest, small, largest = spec.shares
    low, high = (smallest, small) if rng.random() < spec.small else (small, largest)
    share = rng.uniform(low, high)
    cut = rng.random() < spec.cut
    free = 0.35 if cut else max(0.47 - share / 2, 0.0)
    target = size / 2 + rng.uniform(-free, free, 2) * size
    # The size in the picture depends on perspective: a few steps find the distance.
    middle = (vertices.max(0) + vertices.min(0)) / 2
    depth = focal * np.ptp(vertices[:, :2], axis=0).max() / (share * size)
    for _ in range(4):
        depth = max(depth, NEAREST + middle[2] - vertices[:, 2].min())
        place = np.array([*((target - centre) / focal * depth), depth]) - middle
        camera = HandCamera(place, focal, centre, size)
        pixels = camera.project(vertices)
        depth *= np.ptp(pixels, axis=0).max() / (share * size)
        target = target + (0 if cut else _inwards(pixels, size))
    return camera


def _inwards(pixels: np.ndarray, size: int) -> np.ndarray:
    """The shift (px) that moves points into the picture, as far as they fit."""
    low, high = pixels.min(0), pixels.max(0)
    return np.maximum(0.02 * size - low, 0) - np.maximum(high - 0.98 * size, 0)


def _picture(
    hand: SmplModel,
    pose: np.ndarray,
    shape: tuple[np.ndarray, np.ndarray],
    camera: HandCamera,
    appearance: Appearance,
    background: tuple[np.ndarray, np.ndarray | None],
    spec: HandPictureSpec,
) -> tuple[np.ndarray, np.ndarray]:
    """Picture and mask of the hand. `shape`: vertices and keypoints, metres."""
    surface, rng = surface_of(hand), np.random.default_rng(appearance.seed)
    vertices, keypoints = shape
    turn = Rotation.from_rotvec(np.asarray(pose, np.float64)[:3]).as_matrix()
    # 1. The meshes: hand and forearm, sleeves, a held object.
    coarse = surface.with_forearm(vertices, turn, appearance.bend)
    normals = surface.refine @ vertex_normals(coarse, surface.coarse)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    meshes = [(surface.refine @ coarse, surface.faces, normals, appearance.albedo)]
    for sleeve in appearance.sleeves:
        meshes.append(_sleeve(surface, sleeve, vertices, turn, appearance.bend, rng))
    held = appearance.held and held_object(keypoints, *appearance.held)
    if held:
        meshes.append(held)
    # 2. Their light and colours.
    ground, known = background
    ends = np.cumsum([0, *(len(mesh[0]) for mesh in meshes)])
    points = np.concatenate([mesh[0] for mesh in meshes]) + camera.translation
    faces = np.concatenate([m[1] + start for m, start in zip(meshes, ends, strict=False)])
    normals = np.concatenate([mesh[2] for mesh in meshes])
    albedo = np.concatenate([mesh[3] for mesh in meshes])
    light = light_body(normals, rng, ground.mean((0, 1)).astype(np.float64), known)
    gloss = np.pad(appearance.gloss, (0, len(points) - len(appearance.gloss)))
    if rng.random() < 0.5:  # a second light
        towards = _direction(rng)
        light += (
            np.maximum(normals @ towards, 0)[:, None]
            * rng.uniform(0.05, 0.4)
            * rng.uniform(0.8, 1.1, 3)
        )
    # Photographs of bright scenes are exposed for them.
    light *= min(1.0, rng.uniform(0.75, 1.15) / np.quantile(light[:: len(light) // 500], 0.9))
    half = _direction(rng) - points / np.linalg.norm(points, axis=-1, keepdims=True)
    half /= np.maximum(np.linalg.norm(half, axis=-1, keepdims=True), 1e-9)
    shine = gloss * np.maximum(np.sum(normals * half, -1), 0) ** 25
    colour = np.clip(albedo * light + shine[:, None], 0, 1) ** (1 / 2.2)
    # 3. The pixels of the window that the meshes are in.
    size, s = camera.size, SAMPLES
    x0, y0, x1, y1 = _window(points, camera)
    middle = (float(camera.centre[0] - x0) * s, float(camera.centre[1] - y0) * s)
    wide, high = (x1 - x0) * s, (y1 - y0) * s
    drawn = rasterize(points, faces, camera.focal * s, wide, high, middle, near=NEAR)
    face_id, _, bary = drawn
    picture = np.array(ground, np.float32)
    cover = np.zeros((size, size), np.float32)
    colour, window = colour.astype(np.float32), np.s_[y0:y1, x0:x1]
    _composite(face_id, bary, faces, colour, picture[window], cover[window], s, surface.own)
    if rng.random() < spec.patch:
        draw_patches(picture, cover, rng)
    return _photographed(picture, rng), cover > 0.5


def _window(points: np.ndarray, camera: HandCamera) -> tuple[int, int, int, int]:
    """Left, top, right and bottom (px) of the part of the picture that points (camera) are in."""
    if points[:, 2].min() <= NEAR:  # clipped triangles may reach anywhere
        return 0, 0, camera.size, camera.size
    pixels = points[:, :2] / points[:, 2:] * camera.focal + camera.centre
    low = np.clip(np.floor(pixels.min(0)), 0, camera.size - 1).astype(int)
    high = np.clip(np.ceil(pixels.max(0)), low + 1, camera.size).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _direction(rng: np.random.Generator) -> np.ndarray:
    """A random direction of a light, mostly on the side of the camera."""
    direction = rng.normal(size=3) + [0.0, -0.4, -0.6]
    return direction / max(np.linalg.norm(direction), 1e-6)


def _photographed(picture: np.ndarray, rng: np.random.Generator) -> UInt8[np.ndarray, "S S 3"]:
    """What a camera and JPEG make of a picture in 0..1, in single precision for speed.

    Exposure, slight blur, sensor noise, and in some a low resolution.
    """
    exposed = np.clip(picture * np.float32(255 * rng.uniform(0.8, 1.15)), 0, 255)
    image = Image.fromarray(exposed.astype(np.uint8))
    if rng.random() < 0.7:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.0)))
    grain = rng.standard_normal(picture.shape, np.float32)
    grain *= np.float32(rng.uniform(0, 6))
    grain += np.asarray(image)
    image = Image.fromarray(np.clip(grain, 0, 255, out=grain).astype(np.uint8))
    if rng.random() < 0.2:
        size, small = image.size, int(len(picture) * rng.uniform(0.35, 0.9))
        reduced = image.resize((small, small), Image.Resampling.BOX)
        image = reduced.resize(size, Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=int(rng.integers(55, 96)))
    return np.asarray(Image.open(stream))


@compiled
def _composite(face_id, bary, faces, colour, picture, cover, samples, own):
    """Draws meshes over `picture` (S, S, 3), in place.

    Vertex colours (V, 3) are interpolated at each sample and averaged over the samples of a pixel.
    The share of each pixel that shows one of the first `own` faces goes into cover (S, S).
    """
    share = 1.0 / (samples * samples)
    value = np.empty(3)
    for row in range(cover.shape[0]):
        for col in range(cover.shape[1]):
            count = 0
            hand = 0
            value[:] = 0.0
            for y in range(row * samples, (row + 1) * samples):
                for x in range(col * samples, (col + 1) * samples):
                    face = face_id[y, x]
                    if face >= 0:
                        count += 1
                        hand += face < own
                        for i in range(3):
                            for k in range(3):
                                value[k] += bary[y, x, i] * colour[faces[face, i], k]
            cover[row, col] = hand * share
            for k in range(3):
                behind = picture[row, col, k] * (1.0 - count * share)
                picture[row, col, k] = behind + value[k] * share


def _sleeve(
    surface: HandSurface,
    sleeve: Sleeve,
    vertices: np.ndarray,
    turn: np.ndarray,
    bend: np.ndarray,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices, faces, normals and colours of a sleeve."""
    count, around = 12, len(surface.border)
    distances = tuple(np.linspace(sleeve.start, sleeve.end, count))
    points = surface.tube(vertices, turn, bend, distances, sleeve.scale)
    faces = grid_faces(count, around)
    # Folds: thickness changes around and along, more in wide sleeves.
    folds = rng.normal(0, 0.002 + 0.008 * (sleeve.scale - 1.08), (count, around, 1))
    folds = (folds + np.roll(folds, 1, 1) + np.roll(folds, -1, 1)) / 2
    points = points + vertex_normals(points, faces) * folds.reshape(-1, 1)
    colours = cloth(points @ turn, sleeve.colours, rng)
    return points, faces, vertex_normals(points, faces), colours
