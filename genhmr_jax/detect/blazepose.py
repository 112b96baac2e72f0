"""BlazePose: 39 landmarks of one person in a square region, and its inner maps as a pose-pretrained image encoder.

Input is a region turned so that the person stands upright in it (MediaPipe's convention): centre at mid-hip, mid-hip to mid-shoulder
points up, side 2.5 times the distance of the farthest body point. The first 33 landmarks are the body, 33 is mid-hip and 34 a point on
the circle around the body: with these two the network itself says which region it wants to see next.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from genhmr_jax import masks
from genhmr_jax.detect import graph

SIZE = 256
LANDMARKS = 39
REGION_PER_RADIUS = 2.5
OUTPUTS = ("ld_3d", "world_3d", "output_poseflag", "activation_segmentation")
# State names of the maps of 32x32, 16x16 and 8x8. Where there are two, they are joined: the encoder's last map of that resolution,
# and that of the decoder which carries the coarser maps back up. The heavy network has one map a resolution after its decoder.
FEATURE_NODES = {
    "full": (("model/add_1/add", "model/add_10/add"), ("model/add_5/add", "model/add_9/add"), ("model/re_lu_41/Relu6",)),
    "lite": (("model/add_1/add", "model/add_10/add"), ("model/add_5/add", "model/add_9/add"), ("model/re_lu_41/Relu6",)),
    "heavy": (("model/add_33/add",), ("model/add_42/add",), ("model/add_51/add",)),
}
INDEX = {
    **{"nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8, "left_shoulder": 11, "right_shoulder": 12},
    **{"left_elbow": 13, "right_elbow": 14, "left_wrist": 15, "right_wrist": 16, "left_index": 19, "right_index": 20},
    **{"left_hip": 23, "right_hip": 24, "left_knee": 25, "right_knee": 26, "left_ankle": 27, "right_ankle": 28},
    **{"left_heel": 29, "right_heel": 30, "left_big_toe": 31, "right_big_toe": 32},
}
"""Where BlazePose keeps our keypoints. Its "index" is the knuckle of the index finger; ours is the finger tip, see `Landmarks.named`."""
TIP_PER_KNUCKLE = 2.0


@dataclasses.dataclass(frozen=True)
class Region:
    """A turned square of an image: centre x, y and side in px; `angle` radians, by which the person leans clockwise in the image."""

    x: float
    y: float
    side: float
    angle: float

    def axes(self) -> Float[np.ndarray, "2 2"]:
        """Columns: the region's right and down in the image."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    def frame(self) -> Float[np.ndarray, "2 3"]:
        """Where the region lies, as `Masks.frames` says it."""
        axes = self.axes() * self.side
        return np.concatenate([axes, ([self.x, self.y] - axes.sum(1) / 2)[:, None]], 1)

    def to_image(self, points: Float[np.ndarray, "*k 2"]) -> Float[np.ndarray, "*k 2"]:
        """Points in px of the network's input -> px of the image."""
        return (points / SIZE - 0.5) * self.side @ self.axes().T + [self.x, self.y]

    def crop(self, image: np.ndarray) -> Float[np.ndarray, "256 256 3"]:
        """The network's input: values 0..1, black outside the image. `image`: uint8 (H, W, 3)."""
        picture = Image.fromarray(image)
        shrink = max(1, int(self.side / SIZE / 1.5))  # a large region is averaged down first, since sampling alone would alias
        if shrink > 1:
            picture = picture.reduce(shrink)
        scale = self.axes() * (self.side / SIZE / shrink)
        corner = self.to_image(np.zeros(2)) / shrink
        matrix = (*scale[0], corner[0], *scale[1], corner[1])
        warped = picture.transform((SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return np.asarray(warped, np.float32) / 255.0


def region_around(centre: Float[np.ndarray, "2"], up: Float[np.ndarray, "2"], farthest: float) -> Region:
    """MediaPipe's region: `centre` mid-hip, `up` a vector from mid-hip towards mid-shoulder, `farthest` the body's radius, in px."""
    return Region(float(centre[0]), float(centre[1]), max(REGION_PER_RADIUS * float(farthest), 1.0), float(np.arctan2(up[0], -up[1])))


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """What the network says of one person.

    points: (39, 2) px of the image. visibility: (39,) 0..1, probability that the landmark is in the picture and not hidden.
    person: 0..1, probability that the region holds a person. world: (39, 3) where it believes the landmarks to be, in metres from
    mid-hip; x to the right of the image, y down, z away from the camera. mask: (M, M) 0..1, where in the region the person is.
    """

    points: Float[np.ndarray, "39 2"]
    visibility: Float[np.ndarray, "39"]
    person: float
    world: Float[np.ndarray, "39 3"]
    mask: Float[np.ndarray, "M M"]

    def named(self, names: tuple[str, ...]) -> Float[np.ndarray, "K 3"]:
        """Our keypoints: x, y px and confidence.

        Finger tips are where an outstretched hand would have them, twice as far from the wrist as the knuckle that BlazePose marks
        (on our body wrist to tip is 0.8 of the forearm; BlazePose's knuckle lies at 0.3 to 0.45 of it).
        """
        points = np.concatenate([_with_tips(self.points), self.visibility[:, None]], -1)
        return points[[INDEX[name] for name in names]]

    def named_world(self, names: tuple[str, ...]) -> Float[np.ndarray, "K 3"]:
        """Our keypoints in metres, as `world` has them; finger tips as in `named`."""
        return _with_tips(self.world)[[INDEX[name] for name in names]]

    def region(self) -> Region:
        """The region to look at next."""
        centre = self.points[33]
        return region_around(centre, self.points[34] - centre, np.linalg.norm(self.points[34] - centre))


def _with_tips(points: Float[np.ndarray, "39 D"]) -> Float[np.ndarray, "39 D"]:
    points = points.copy()
    for wrist, index in ((15, 19), (16, 20)):
        points[index] = points[wrist] + TIP_PER_KNUCKLE * (points[index] - points[wrist])
    return points


def landmarks(image: np.ndarray, region: Region, network: str = "blazepose-full") -> Landmarks:
    """Looks at one region of an image, uint8 (H, W, 3)."""
    raw, world, person, mask = _landmarks(network)(graph.load(network)[1], region.crop(image)[None])
    raw, world = np.asarray(raw, np.float64).reshape(LANDMARKS, 5), np.array(world, np.float64).reshape(LANDMARKS, 3)
    world[:, :2] = world[:, :2] @ region.axes().T
    visibility = 1.0 / ((1.0 + np.exp(-raw[:, 3])) * (1.0 + np.exp(-raw[:, 4])))
    coarse = np.asarray(mask).reshape(masks.SIZE, SIZE // masks.SIZE, masks.SIZE, SIZE // masks.SIZE).mean((1, 3))
    return Landmarks(region.to_image(raw[:, :2]), visibility, float(person[0, 0]), world, coarse)


@functools.cache
def _landmarks(network: str):
    description, _ = graph.load(network)

    @jax.jit
    def apply(weights: dict[str, Array], crops: Float[Array, "B 256 256 3"]) -> tuple[Array, ...]:
        result = graph.run(description, weights, {description.inputs[0]: crops}, OUTPUTS)
        return tuple(result[name] for name in OUTPUTS)

    return apply


def feature_maps(crops: Float[Array, "B 256 256 3"], variant: str = "full") -> list[Float[Array, "B h w C"]]:
    """Inner maps of BlazePose, as features of a person's crop.

    Args:
      crops: values 0..1, the person upright and filling most of the square.
      variant: "full" (shipped), "heavy" or "lite" (made by tools/build_eyes.py).

    Returns:
      maps of 32x32, 16x16 and 8x8 with 80, 136, 288 channels (full; 56, 88, 192 lite; 96, 192, 288 heavy), see FEATURE_NODES.
      Differentiable with respect to the crops.

    Raises:
      ValueError: unknown variant. FileNotFoundError: its weights are not there.
    """
    if variant not in FEATURE_NODES:
        raise ValueError(f"unknown BlazePose {variant!r}: choose among {', '.join(FEATURE_NODES)}")
    return _feature_maps(variant)(graph.load(f"blazepose-{variant}")[1], crops)


@functools.cache
def _feature_maps(variant: str):
    description, _ = graph.load(f"blazepose-{variant}")
    groups = FEATURE_NODES[variant]

    def batch(weights: dict[str, Array], crops: Array) -> list[Array]:
        values = graph.run(description, weights, {description.inputs[0]: crops}, [name for group in groups for name in group])
        return [jnp.concatenate([values[name] for name in group], -1) for group in groups]

    @jax.jit
    def apply(weights: dict[str, Array], crops: Array) -> list[Array]:
        if jax.default_backend() != "cpu":
            return batch(weights, crops)
        # One by one, because the maps of one image stay in a CPU's cache: a third faster than a batch of 32.
        maps = jax.lax.map(lambda crop: batch(weights, crop[None]), crops)
        return [m[:, 0] for m in maps]

    return apply
