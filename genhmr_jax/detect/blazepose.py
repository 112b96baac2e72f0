"""BlazePose: 39 landmarks of one person in a square region, and its inner maps as image features.

The input is a region that is rotated so that the person is upright in it (MediaPipe's convention):
its centre is mid-hip, the direction from mid-hip to mid-shoulder points up, and its side is 2.5
times the distance of the farthest body point from mid-hip. Landmarks 0 to 32 are the body.
Landmark 33 is mid-hip, and 34 a point on the circle around the body: these two define the region of
the next pass.
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
from genhmr_jax.detect.graph_runner import Graph
from genhmr_jax.io.program_store import stored

NETWORK = "blazepose-full"
SIZE = 256
LANDMARKS, BODY = 39, 33
REGION_PER_RADIUS = 2.5
OUTPUTS = ("ld_3d", "world_3d", "output_poseflag", "activation_segmentation", "activation_heatmap")
# Names of the nodes whose outputs are the maps of 32x32, 16x16 and 8x8. Two maps are concatenated:
# the encoder's last one of that resolution, and the decoder's, which upsamples the coarser maps.
# The heavy network has one map for each resolution, after its decoder.
_TWO_SIDED = (
    ("model/add_1/add", "model/add_10/add"),
    ("model/add_5/add", "model/add_9/add"),
    ("model/re_lu_41/Relu6",),
)
FEATURE_NODES = {
    "full": _TWO_SIDED,
    "lite": _TWO_SIDED,
    "heavy": (("model/add_33/add",), ("model/add_42/add",), ("model/add_51/add",)),
}
INDEX = {
    "nose": 0, "left_eye": 2, "right_eye": 5, "left_ear": 7, "right_ear": 8,
    "left_shoulder": 11, "right_shoulder": 12, "left_elbow": 13, "right_elbow": 14,
    "left_wrist": 15, "right_wrist": 16, "left_index": 19, "right_index": 20,
    "left_hip": 23, "right_hip": 24, "left_knee": 25, "right_knee": 26,
    "left_ankle": 27, "right_ankle": 28, "left_heel": 29, "right_heel": 30,
    "left_big_toe": 31, "right_big_toe": 32,
}  # fmt: skip
"""Our keypoint -> BlazePose's landmark.

Its "index" is the knuckle of the index finger; ours is the finger tip, see `from_landmarks`.
"""
TIP_PER_KNUCKLE = 2.0
# Cells of the heatmap around a landmark, and the smallest maximum there for which the landmark is
# corrected, as in MediaPipe's pose graph.
WINDOW, CLEAR = 9, 0.5
INNER, EARLY = "model/re_lu_41/Relu6", "model/add_5/add"
"""Two inner maps of NETWORK: that of 8x8x288 from which it computes all landmarks, and that of
16x16x88 from which it computes INNER. The lifter (detect/lifter.py) goes on from EARLY."""
EARLY_SHAPE = (16, 16, 88)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Evidence:
    """The raw outputs of the network for a region. Any leading batch axes b.

    Attributes:
      landmarks: (*b, 39, 5) x, y in px of its input, z, logits of visibility and of presence.
      world: (*b, 39, 3) metres from mid-hip, in the axes of the region.
      heat: (*b, 39, 6) see `heat_points`.
      region: (*b, 4) x, y, side in px and angle in radians.
      inner: (*b, 8, 8, 288) see INNER; (0,) for another network than NETWORK.
      mirrored: (*b, 8, 8, 288) the inner map of the mirror image, in the axes of its own region;
        zero if no person was found there.
    """

    landmarks: Float[Array, "*b 39 5"]
    world: Float[Array, "*b 39 3"]
    heat: Float[Array, "*b 39 6"]
    region: Float[Array, "*b 4"]
    inner: Float[Array, "*b 8 8 288"]
    mirrored: Float[Array, "*b 8 8 288"]


@dataclasses.dataclass(frozen=True)
class Region:
    """A rotated square of an image.

    Attributes:
      x, y: centre, px.
      side: px.
      angle: radians by which the person is rotated clockwise in the image.
    """

    x: float
    y: float
    side: float
    angle: float

    def axes(self) -> Float[np.ndarray, "2 2"]:
        """The region's directions right and down in the image, as columns."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]])

    def frame(self) -> Float[np.ndarray, "2 3"]:
        """The location of the region in the form of Detections.mask_frames."""
        axes = self.axes() * self.side
        return np.concatenate([axes, ([self.x, self.y] - axes.sum(1) / 2)[:, None]], 1)

    def to_image(
        self, points: Float[np.ndarray, "*k 2"], size: int = SIZE
    ) -> Float[np.ndarray, "*k 2"]:
        """Convert points in px of a network's input, of `size` px a side, to px of the image."""
        return (points / size - 0.5) * self.side @ self.axes().T + [self.x, self.y]

    def crop(self, image: np.ndarray, size: int = SIZE) -> Float[np.ndarray, "size size 3"]:
        """A network's input: values 0..1, black outside the image. `image`: uint8 (H, W, 3)."""
        picture = Image.fromarray(image)
        # A large region is reduced by averaging first, because sampling alone would alias.
        shrink = max(1, int(self.side / size / 1.5))
        if shrink > 1:
            picture = picture.reduce(shrink)
        scale = self.axes() * (self.side / size / shrink)
        corner = self.to_image(np.zeros(2)) / shrink
        matrix = (*scale[0], corner[0], *scale[1], corner[1])
        affine, bilinear = Image.Transform.AFFINE, Image.Resampling.BILINEAR
        warped = picture.transform((size, size), affine, matrix, bilinear)
        return np.asarray(warped, np.float32) / 255.0


def region_around(
    centre: Float[np.ndarray, "2"], up: Float[np.ndarray, "2"], farthest: float
) -> Region:
    """MediaPipe's region around a body.

    Args:
      centre: mid-hip, px.
      up: a vector from mid-hip towards mid-shoulder.
      farthest: distance of the farthest body point from mid-hip, px.
    """
    side, angle = max(REGION_PER_RADIUS * float(farthest), 1.0), float(np.arctan2(up[0], -up[1]))
    return Region(float(centre[0]), float(centre[1]), side, angle)


def region_of(points: Float[np.ndarray, "K 2"], names: tuple[str, ...]) -> Region:
    """The region around keypoints, px, which must include hips and shoulders."""
    middle = lambda name: points[[names.index(f"{s}_{name}") for s in ("left", "right")]].mean(0)
    hip = middle("hip")
    return region_around(hip, middle("shoulder") - hip, np.linalg.norm(points - hip, axis=-1).max())


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """The network's estimate of one person.

    Attributes:
      points: (39, 2) px of the image, the body's 33 corrected by their heatmaps.
      visibility: (39,) probability that the landmark is in the picture and not hidden.
      person: probability that the region shows a person.
      world: (39, 3) metres from mid-hip; x to the right of the image, y down, z away from the
        camera.
      mask: (M, M) probability that a cell of the region belongs to the person.
      evidence: the network's raw outputs; `mirrored` is zero.
      early: (16, 16, 88) see EARLY; (0,) for another network than NETWORK.
    """

    points: Float[np.ndarray, "39 2"]
    visibility: Float[np.ndarray, "39"]
    person: float
    world: Float[np.ndarray, "39 3"]
    mask: Float[np.ndarray, "M M"]
    evidence: Evidence
    early: Float[np.ndarray, "16 16 88"]

    def named(self, names: tuple[str, ...]) -> Float[np.ndarray, "K 3"]:
        """Our keypoints: x, y px and confidence; see `from_landmarks`."""
        confidence = self.visibility[[INDEX[name] for name in names], None]
        return np.concatenate([from_landmarks(names) @ self.points, confidence], -1)

    def named_world(self, names: tuple[str, ...]) -> Float[np.ndarray, "K 3"]:
        """Our keypoints in metres, in the axes of `world`."""
        return from_landmarks(names) @ self.world

    def region(self) -> Region:
        """The region of the next pass."""
        centre, up = self.points[33], self.points[34] - self.points[33]
        return region_around(centre, up, np.linalg.norm(up))


def from_landmarks(names: tuple[str, ...]) -> Float[np.ndarray, "K 39"]:
    """The matrix that maps the 39 landmarks to our keypoints.

    Finger tips are extrapolated for a straight hand: twice as far from the wrist as BlazePose's
    knuckle. (On our body the distance from wrist to tip is 0.8 of the forearm; BlazePose's knuckle
    is at 0.3 to 0.45 of it.)
    """
    matrix = np.zeros((len(names), LANDMARKS))
    for row, name in zip(matrix, names, strict=True):
        row[INDEX[name]] = TIP_PER_KNUCKLE if name.endswith("_index") else 1.0
        if name.endswith("_index"):
            row[INDEX[name.replace("index", "wrist")]] = 1.0 - TIP_PER_KNUCKLE
    return matrix


def preload(network: str = NETWORK, make: bool = False) -> None:
    """Read the stored program of `landmarks`; with `make`, compile a missing one."""
    graph, weights = graph_runner.load(network)
    crop = np.zeros((1, SIZE, SIZE, 3), np.float32)
    _landmarks.preload(weights, crop, graph, _inner_nodes(network), make=make)


def landmarks(image: np.ndarray, region: Region, network: str = NETWORK) -> Landmarks:
    """Run the network on one region of an image, uint8 (H, W, 3)."""
    return landmarks_of_crop(region.crop(image), region, network)


def landmarks_of_crop(
    crop: Float[np.ndarray, "256 256 3"], region: Region, network: str = NETWORK
) -> Landmarks:
    """Run the network on the pixels of a region (Region.crop)."""
    # 1. The raw outputs.
    graph, weights = graph_runner.load(network)
    found = _landmarks(weights, crop[None], graph, _inner_nodes(network))
    *outputs, heat, inner, early = [np.asarray(value) for value in found]
    raw, world, person, mask = (value.astype(np.float64) for value in outputs)
    raw, world = raw.reshape(LANDMARKS, 5), world.reshape(LANDMARKS, 3)
    location = np.array([region.x, region.y, region.side, region.angle])
    evidence = Evidence(raw, world, heat, location, inner[0], np.zeros_like(inner[0]))
    # 2. Landmarks, corrected by their heatmaps, and in the axes of the image.
    corrected = (np.arange(LANDMARKS) < BODY) & (heat[:, 2] >= CLEAR)
    points = np.where(corrected[:, None], heat[:, :2], raw[:, :2])
    points = region.to_image(points)
    world = np.concatenate([world[:, :2] @ region.axes().T, world[:, 2:]], -1)
    # 3. Visibility: visible and present. The mask, averaged over blocks of cells.
    visibility = 1.0 / ((1.0 + np.exp(-raw[:, 3])) * (1.0 + np.exp(-raw[:, 4])))
    coarse = mask.reshape(MASK_SIZE, SIZE // MASK_SIZE, MASK_SIZE, SIZE // MASK_SIZE).mean((1, 3))
    return Landmarks(points, visibility, float(person[0, 0]), world, coarse, evidence, early[0])


def heat_points(
    landmarks: Float[Array, "39 5"], heat: Float[Array, "G G 39"]
) -> Float[Array, "39 6"]:
    """The locations of the landmarks in the network's heatmaps.

    MediaPipe corrects landmarks in this way (its RefineLandmarksFromHeatmapCalculator, with the
    same window). It halves the error of wrists and knees.

    Args:
      landmarks: in px of the network's input.
      heat: 0..1, one map for each landmark.

    Returns:
      for each landmark, with x and y in px of the input: x and y of the map's centre of mass in the
      WINDOW cells around the landmark, and the maximum there (the landmark itself and 0 if it is
      outside the map); then x, y and value of the maximum of the whole map.
    """
    size = heat.shape[0]
    # The location of a cell is its upper left corner: then rendered people have no shift in x.
    cells = jnp.arange(size) * (SIZE / size)
    # 1. The centre of mass around each landmark.
    at = jnp.round(landmarks[:, :2] * (size / SIZE))
    inside = jnp.abs(jnp.arange(size)[:, None] - at.T[:, None, :]) <= WINDOW // 2  # (2, G, 39)
    window = heat * inside[1][:, None] * inside[0][None]
    mass = jnp.sum(window, (0, 1))
    grid = jnp.stack(jnp.meshgrid(cells, cells))[..., None]
    centre = jnp.einsum("ayxk->ka", window * grid) / jnp.maximum(mass, 1e-6)[:, None]
    centre = jnp.where((mass > 1e-6)[:, None], centre, landmarks[:, :2])
    # 2. The maximum of each map.
    best = jnp.argmax(heat.reshape(-1, heat.shape[-1]), 0)
    peak = jnp.stack([cells[best % size], cells[best // size]], -1)
    values = jnp.max(window, (0, 1))[:, None], jnp.max(heat, (0, 1))[:, None]
    return jnp.concatenate([centre, values[0], peak, values[1]], -1)


def _inner_nodes(network: str) -> tuple[str, ...]:
    """The inner maps that are wanted of a network."""
    return (INNER, EARLY) if network == NETWORK else ()


@stored("graph", "inner")
def _landmarks(
    weights: dict[str, Array],
    crops: Float[Array, "1 256 256 3"],
    graph: Graph,
    inner: tuple[str, ...],
) -> tuple[Array, ...]:
    """The network's outputs: OUTPUTS, with `heat_points` for the heatmap, and the nodes `inner`.

    Without such nodes there are two empty arrays in their place.
    """
    result = graph_runner.run(graph, weights, {graph.inputs[0]: crops}, [*OUTPUTS, *inner])
    *first, heat = (result[name] for name in OUTPUTS)
    heat = heat_points(first[0].reshape(LANDMARKS, 5), heat[0])
    maps = [result[name] for name in inner] or 2 * [jnp.zeros((1, 0))]
    return (*first, heat, *maps)


def feature_maps(
    crops: Float[Array, "B 256 256 3"], variant: str = "full"
) -> list[Float[Array, "B h w C"]]:
    """Inner maps of BlazePose, as features of a person's crop.

    Args:
      crops: values 0..1; the person should be upright and fill most of the square.
      variant: "full" (shipped), "heavy" or "lite" (made by tools/build_eyes.py).

    Returns:
      maps of 32x32, 16x16 and 8x8 with 80, 136, 288 channels (full; 56, 88, 192 lite; 96, 192, 288
      heavy), see FEATURE_NODES. Differentiable with respect to the crops.

    Raises:
      ValueError: unknown variant.
      FileNotFoundError: its weights do not exist.
    """
    if variant not in FEATURE_NODES:
        raise ValueError(f"unknown BlazePose {variant!r}: choose among {', '.join(FEATURE_NODES)}")
    return _feature_maps(variant)(graph_runner.load(f"blazepose-{variant}")[1], crops)


@functools.cache
def _feature_maps(variant: str):
    description, _ = graph_runner.load(f"blazepose-{variant}")
    groups = FEATURE_NODES[variant]

    def batch(weights: dict[str, Array], crops: Array) -> list[Array]:
        names = [name for group in groups for name in group]
        values = graph_runner.run(description, weights, {description.inputs[0]: crops}, names)
        return [jnp.concatenate([values[name] for name in group], -1) for group in groups]

    @jax.jit
    def apply(weights: dict[str, Array], crops: Array) -> list[Array]:
        if jax.default_backend() != "cpu":
            return batch(weights, crops)
        # One image at a time: its maps fit into the cache of a CPU, which is a third faster than a
        # batch of 32.
        maps = jax.lax.map(lambda crop: batch(weights, crop[None]), crops)
        return [m[:, 0] for m in maps]

    return apply
