"""BlazePose: 39 landmarks of one person in a square region, and its inner maps as a pose-pretrained
image encoder.

Input is a region turned so that the person stands upright in it (MediaPipe's convention): centre at
mid-hip, mid-hip to mid-shoulder points up, side 2.5 times the distance of the farthest body point.
The first 33 landmarks are the body, 33 is mid-hip and 34 a point on the circle around the body:
with these two the network itself says which region it wants to see next.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from PIL import Image

from genhmr_jax.detect import graph_runner
from genhmr_jax.detect.detections import MASK_SIZE

SIZE = 256
LANDMARKS, BODY = 39, 33
REGION_PER_RADIUS = 2.5
OUTPUTS = ("ld_3d", "world_3d", "output_poseflag", "activation_segmentation", "activation_heatmap")
# State names of the maps of 32x32, 16x16 and 8x8. Where there are two, they are joined: the
# encoder's last map of that resolution, and that of the decoder which carries the coarser maps back
# up. The heavy network has one map a resolution after its decoder.
FEATURE_NODES = {
    "full": (
        ("model/add_1/add", "model/add_10/add"),
        ("model/add_5/add", "model/add_9/add"),
        ("model/re_lu_41/Relu6",),
    ),
    "lite": (
        ("model/add_1/add", "model/add_10/add"),
        ("model/add_5/add", "model/add_9/add"),
        ("model/re_lu_41/Relu6",),
    ),
    "heavy": (("model/add_33/add",), ("model/add_42/add",), ("model/add_51/add",)),
}
INDEX = {
    **{
        "nose": 0,
        "left_eye": 2,
        "right_eye": 5,
        "left_ear": 7,
        "right_ear": 8,
        "left_shoulder": 11,
        "right_shoulder": 12,
    },
    **{
        "left_elbow": 13,
        "right_elbow": 14,
        "left_wrist": 15,
        "right_wrist": 16,
        "left_index": 19,
        "right_index": 20,
    },
    **{
        "left_hip": 23,
        "right_hip": 24,
        "left_knee": 25,
        "right_knee": 26,
        "left_ankle": 27,
        "right_ankle": 28,
    },
    **{"left_heel": 29, "right_heel": 30, "left_big_toe": 31, "right_big_toe": 32},
}
"""Where BlazePose keeps our keypoints. Its "index" is the knuckle of the index finger; ours is the
finger tip, see `from_landmarks`."""
TIP_PER_KNUCKLE = 2.0
WINDOW, CLEAR = (
    9,
    0.5,
    # cells of the heatmap around a landmark, and its least value for a correction, as in MediaPipe's
    # pose graph
)
INNER = {"blazepose-full": "model/re_lu_41/Relu6"}
"""The map of 8x8x288 from which the network computes all landmarks, for the network on which the
lifter was trained (detect/lifter.py)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """What the network itself put out for a region. Any leading batch axes b.

    Attributes:
      landmarks: (*b, 39, 5) x, y in px of its input, z, logits of visibility and of presence.
      world: (*b, 39, 3) metres from mid-hip, in the axes of the region.
      heat: (*b, 39, 6) see `heat_points`.
      region: (*b, 4) x, y, side in px and angle in radians.
      inner: (*b, 8, 8, 288) see INNER; (0,) of another network.
      mirrored: (*b, 8, 8, 288) the inner map of the mirror image, in the axes of its own region;
        zero where no person was seen there.
    """

    landmarks: Float[Array, "*b 39 5"]
    world: Float[Array, "*b 39 3"]
    heat: Float[Array, "*b 39 6"]
    region: Float[Array, "*b 4"]
    inner: Float[Array, "*b 8 8 288"]
    mirrored: Float[Array, "*b 8 8 288"]


@dataclasses.dataclass(frozen=True)
class Region:
    """A turned square of an image: centre x, y and side in px; `angle` radians, by which the person
    leans clockwise in the image."""

    x: float
    y: float
    side: float
    angle: float

    def axes(self) -> Float[np.ndarray, "2 2"]:
        """Columns: the region's right and down in the image."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    def frame(self) -> Float[np.ndarray, "2 3"]:
        """Where the region lies, as Detections.mask_frames has it."""
        axes = self.axes() * self.side
        return np.concatenate([axes, ([self.x, self.y] - axes.sum(1) / 2)[:, None]], 1)

    def to_image(self, points: Float[np.ndarray, "*k 2"]) -> Float[np.ndarray, "*k 2"]:
        """Points in px of the network's input -> px of the image."""
        return (points / SIZE - 0.5) * self.side @ self.axes().T + [self.x, self.y]

    def crop(self, image: np.ndarray) -> Float[np.ndarray, "256 256 3"]:
        """The network's input: values 0..1, black outside the image. `image`: uint8 (H, W, 3)."""
        picture = Image.fromarray(image)
        shrink = max(
            1, int(self.side / SIZE / 1.5)
        )  # a large region is averaged down first, since sampling alone would alias
        if shrink > 1:
            picture = picture.reduce(shrink)
        scale = self.axes() * (self.side / SIZE / shrink)
        corner = self.to_image(np.zeros(2)) / shrink
        matrix = (*scale[0], corner[0], *scale[1], corner[1])
        warped = picture.transform(
            (SIZE, SIZE), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )
        return np.asarray(warped, np.float32) / 255.0


def region_around(
    centre: Float[np.ndarray, "2"], up: Float[np.ndarray, "2"], farthest: float
) -> Region:
    """MediaPipe's region: `centre` mid-hip, `up` a vector from mid-hip towards mid-shoulder,
    `farthest` the body's radius, in px."""
    return Region(
        float(centre[0]),
        float(centre[1]),
        max(REGION_PER_RADIUS * float(farthest), 1.0),
        float(np.arctan2(up[0], -up[1])),
    )


def region_of(points: Float[np.ndarray, "K 2"], names: tuple[str, ...]) -> Region:
    """The region of a person of whom all these keypoints are known, hips and shoulders among them;
    px."""
    hip, shoulder = (
        points[[names.index(f"{side}_{name}") for side in ("left", "right")]].mean(0)
        for name in ("hip", "shoulder")
    )
    return region_around(hip, shoulder - hip, np.linalg.norm(points - hip, axis=-1).max())


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """The network's estimate of one person.

    Attributes:
      points: (39, 2) px of the image, the body's 33 corrected by their heatmaps.
      visibility: (39,) probability that the landmark is in the picture and not hidden.
      person: probability that the region shows a person.
      world: (39, 3) metres from mid-hip; x to the right of the image, y down, z away from the
        camera.
      mask: (M, M) 0..1, where in the region the person is.
      evidence: the network's own outputs; `mirrored` is zero.
    """

    points: Float[np.ndarray, "39 2"]
    visibility: Float[np.ndarray, "39"]
    person: float
    world: Float[np.ndarray, "39 3"]
    mask: Float[np.ndarray, "M M"]
    evidence: Evidence

    def named(self, names: tuple[str, ...]) -> Float[np.ndarray, "K 3"]:
        """Our keypoints: x, y px and confidence; see `from_landmarks`."""
        confidence = self.visibility[[INDEX[name] for name in names], None]
        return np.concatenate([from_landmarks(names) @ self.points, confidence], -1)

    def named_world(self, names: tuple[str, ...]) -> Float[np.ndarray, "K 3"]:
        """Our keypoints in metres, as `world` has them."""
        return from_landmarks(names) @ self.world

    def region(self) -> Region:
        """The region that the network asks for next."""
        centre = self.points[33]
        return region_around(
            centre, self.points[34] - centre, np.linalg.norm(self.points[34] - centre)
        )


def from_landmarks(names: tuple[str, ...]) -> Float[np.ndarray, "K 39"]:
    """What to multiply the 39 landmarks with for our keypoints.

    Finger tips are where an outstretched hand would have them, twice as far from the wrist as the
    knuckle that BlazePose marks (on our body wrist to tip is 0.8 of the forearm; BlazePose's
    knuckle lies at 0.3 to 0.45 of it).
    """
    matrix = np.zeros((len(names), LANDMARKS))
    for row, name in zip(matrix, names, strict=True):
        row[INDEX[name]] = TIP_PER_KNUCKLE if name.endswith("_index") else 1.0
        if name.endswith("_index"):
            row[INDEX[name.replace("index", "wrist")]] = 1.0 - TIP_PER_KNUCKLE
    return matrix


def landmarks(image: np.ndarray, region: Region, network: str = "blazepose-full") -> Landmarks:
    """Runs the network on one region of an image, uint8 (H, W, 3)."""
    *outputs, heat, inner = [
        np.asarray(value)
        for value in _landmarks(network)(graph_runner.load(network)[1], region.crop(image)[None])
    ]
    raw, world, person, mask = (value.astype(np.float64) for value in outputs)
    raw, world = raw.reshape(LANDMARKS, 5), world.reshape(LANDMARKS, 3)
    where = np.array([region.x, region.y, region.side, region.angle])
    evidence = Evidence(raw, world, heat, where, inner[0], np.zeros_like(inner[0]))
    corrected = (np.arange(LANDMARKS) < BODY) & (heat[:, 2] >= CLEAR)
    points = np.where(corrected[:, None], heat[:, :2], raw[:, :2])
    turned = np.concatenate([world[:, :2] @ region.axes().T, world[:, 2:]], -1)
    visibility = 1.0 / ((1.0 + np.exp(-raw[:, 3])) * (1.0 + np.exp(-raw[:, 4])))
    coarse = mask.reshape(MASK_SIZE, SIZE // MASK_SIZE, MASK_SIZE, SIZE // MASK_SIZE).mean((1, 3))
    return Landmarks(
        region.to_image(points), visibility, float(person[0, 0]), turned, coarse, evidence
    )


def heat_points(
    landmarks: Float[Array, "39 5"], heat: Float[Array, "G G 39"]
) -> Float[Array, "39 6"]:
    """Where the network's heatmaps see its landmarks.

    MediaPipe corrects landmarks so (its RefineLandmarksFromHeatmapCalculator, with the same
    window): halves the error of wrists and knees.

    Args:
      landmarks: in px of the network's input.
      heat: 0..1, a map of each landmark.

    Returns:
      the map's centre of mass in the WINDOW cells around the landmark, x, y in px of the input, and
      the largest value there (0 and the landmark itself where it lies outside the map); and the
      place and value of the largest value of the whole map.
    """
    size = heat.shape[0]
    cells = jnp.arange(size) * (
        SIZE / size
    )  # a cell stands for its upper left corner: on rendered people the shift across is then 0
    at = jnp.round(landmarks[:, :2] * (size / SIZE))
    near = jnp.abs(jnp.arange(size)[:, None] - at.T[:, None, :]) <= WINDOW // 2  # (2, G, 39)
    window = heat * near[1][:, None] * near[0][None]
    mass = jnp.sum(window, (0, 1))
    centre = (
        jnp.einsum("ayxk->ka", window * jnp.stack(jnp.meshgrid(cells, cells))[..., None])
        / jnp.maximum(mass, 1e-6)[:, None]
    )
    inside = (mass > 1e-6)[:, None]
    best = jnp.argmax(heat.reshape(-1, heat.shape[-1]), 0)
    peak = jnp.stack([cells[best % size], cells[best // size]], -1)
    values = jnp.max(window, (0, 1))[:, None], jnp.max(heat, (0, 1))[:, None]
    return jnp.concatenate(
        [jnp.where(inside, centre, landmarks[:, :2]), values[0], peak, values[1]], -1
    )


@functools.cache
def _landmarks(network: str):
    description, _ = graph_runner.load(network)

    @jax.jit
    def apply(weights: dict[str, Array], crops: Float[Array, "B 256 256 3"]) -> tuple[Array, ...]:
        inner = [INNER[network]] if network in INNER else []
        result = graph_runner.run(
            description, weights, {description.inputs[0]: crops}, [*OUTPUTS, *inner]
        )
        *first, heat = (result[name] for name in OUTPUTS)
        heat = heat_points(first[0].reshape(LANDMARKS, 5), heat[0])
        return (*first, heat, result[INNER[network]] if inner else jnp.zeros((1, 0)))

    return apply


def feature_maps(
    crops: Float[Array, "B 256 256 3"], variant: str = "full"
) -> list[Float[Array, "B h w C"]]:
    """Inner maps of BlazePose, as features of a person's crop.

    Args:
      crops: values 0..1, the person upright and filling most of the square.
      variant: "full" (shipped), "heavy" or "lite" (made by tools/build_eyes.py).

    Returns:
      maps of 32x32, 16x16 and 8x8 with 80, 136, 288 channels (full; 56, 88, 192 lite; 96, 192, 288
      heavy), see FEATURE_NODES. Differentiable with respect to the crops.

    Raises:
      ValueError: unknown variant. FileNotFoundError: its weights are not there.
    """
    if variant not in FEATURE_NODES:
        raise ValueError(f"unknown BlazePose {variant!r}: choose among {', '.join(FEATURE_NODES)}")
    return _feature_maps(variant)(graph_runner.load(f"blazepose-{variant}")[1], crops)


@functools.cache
def _feature_maps(variant: str):
    description, _ = graph_runner.load(f"blazepose-{variant}")
    groups = FEATURE_NODES[variant]

    def batch(weights: dict[str, Array], crops: Array) -> list[Array]:
        values = graph_runner.run(
            description,
            weights,
            {description.inputs[0]: crops},
            [name for group in groups for name in group],
        )
        return [jnp.concatenate([values[name] for name in group], -1) for group in groups]

    @jax.jit
    def apply(weights: dict[str, Array], crops: Array) -> list[Array]:
        if jax.default_backend() != "cpu":
            return batch(weights, crops)
        # One by one, because the maps of one image stay in a CPU's cache: a third faster than a
        # batch of 32.
        maps = jax.lax.map(lambda crop: batch(weights, crop[None]), crops)
        return [m[:, 0] for m in maps]

    return apply
