"""Hands: 21 keypoints of each hand of a photo, from MediaPipe's hand landmark network.

A hand is searched by the palm detector (detect/palms.py) in the whole image. It misses small hands:
at each wrist of the detected people without a hand, the search is repeated in a square around it,
and begins also in line with the forearm. The network runs again on the region that its landmarks
define until this region settles.

Facts are from github.com/google/mediapipe, mediapipe/modules/hand_landmark/hand_landmark_cpu.pbtxt,
and the next region is that of geometry/hand_crop.py.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from smpl_jax.keypoints import HAND21

from genhmr_jax.detect import graph_runner, palms
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import check_image
from genhmr_jax.detect.graph_runner import Graph
from genhmr_jax.detect.wrists import SEARCH_PER_FOREARM, Wrist, wrists_of
from genhmr_jax.geometry.hand_crop import palm_region
from genhmr_jax.io.program_store import stored

NETWORK = "handlandmark-lite"
SIZE = 224
BATCHES = (1, 4)  # numbers of regions of a program; fewer programs compile faster
GRID, CHANNELS = 7, 672
ENCODER = "hand_landmarks"
"""The name of the network as an image encoder."""
FEATURES = "t161"
"""Node of the map of 7x7x672 whose mean the network's last layers read."""
MIN_PRESENCE = 0.5
# Sides of the squares in which palms are searched, in sides of the image. The palm detector misses
# many hands that fill a large part of its input: in a larger square they are smaller.
SEARCHES = (1.0, 2.0)
MOST_PASSES = 4  # MediaPipe's video takes one pass a frame, and settles in the same way
# Below it no pass follows. The first regions may cut a hand, so that its presence is low there.
MIN_START_PRESENCE = 0.1
# No pass follows below this change of the region (in sides, radians, and as a logarithm of the
# ratio of sides) if the presence is not smaller than CLEAR.
SETTLED, CLEAR = 0.1, 0.9
# Two estimates are of one hand from this mean distance of keypoints, in sides of the larger box, or
# from this share of the smaller box that they have in common.
SAME_KEYPOINTS, SAME_BOX = 0.3, 0.7
PER_BOX = 1.6  # side of the first region over that of a box that the user gives
NEAR_WRIST = 0.5  # distance of the wrists of hand and body, in sides of the hand's region


@dataclasses.dataclass(frozen=True)
class Hands:
    """H hands of a photo.

    Attributes:
      boxes: (H, 4) xyxy px around the keypoints; may reach beyond the image.
      scores: (H,) probability 0..1 that there is a hand.
      keypoints: (H, 21, 3) x px, y px and confidence 0..1, in the order of HAND21. The
        confidence is the hand's score, and 0 outside the image.
      keypoints3d: (H, 21, 3) metres from the approximate centre of the hand, in the axes of the
        photo: x right, y down, z away from the camera.
      right: (H,) probability 0..1 that it is a right hand.
      features: (H, 7, 7, 672) the network's last map, in the axes of the region. Of a left hand it
        is that of the mirror image, in which it is a right hand.
      regions: (H, 4) the region of the network's last pass: x, y, side in px and angle in radians
        (blazepose.Region).
      person: (H,) index of the person at whose wrist the hand is; -1: nobody's.
    """

    boxes: Float[np.ndarray, "H 4"]
    scores: Float[np.ndarray, "H"]
    keypoints: Float[np.ndarray, "H 21 3"]
    keypoints3d: Float[np.ndarray, "H 21 3"]
    right: Float[np.ndarray, "H"]
    features: Float[np.ndarray, "H 7 7 672"]
    regions: Float[np.ndarray, "H 4"]
    person: Int[np.ndarray, "H"]

    def __len__(self) -> int:
        return len(self.boxes)

    def only(self, chosen: np.ndarray | slice | list[int]) -> "Hands":
        """The chosen hands: indices or (H,) booleans."""
        names = [field.name for field in dataclasses.fields(self)]
        return Hands(**{name: getattr(self, name)[chosen] for name in names})

    def padded(self, rows: int) -> "Hands":
        """The hands followed by empty rows, `rows` in all."""
        empty = Hands.empty(rows - len(self))
        names = [field.name for field in dataclasses.fields(self)]
        parts = {n: np.concatenate([getattr(self, n), getattr(empty, n)]) for n in names}
        return Hands(**parts)

    @staticmethod
    def empty(hands: int = 0) -> "Hands":
        """Rows of hands for which nothing is known."""
        zeros = lambda *shape: np.zeros((hands, *shape), np.float32)
        return Hands(
            boxes=zeros(4),
            scores=zeros(),
            keypoints=zeros(len(HAND21), 3),
            keypoints3d=zeros(len(HAND21), 3),
            right=np.full(hands, 0.5, np.float32),
            features=zeros(GRID, GRID, CHANNELS),
            regions=np.tile(np.float32([0, 0, 1, 0]), (hands, 1)),
            person=np.full(hands, -1),
        )


@dataclasses.dataclass(frozen=True)
class HandEstimate:
    """The network's estimate for one region; see Hands. `points`: (21, 2) px of the image."""

    points: Float[np.ndarray, "21 2"]
    world: Float[np.ndarray, "21 3"]
    presence: float
    right: float
    features: Float[np.ndarray, "7 7 672"]
    region: Region

    def box(self) -> Float[np.ndarray, "4"]:
        """xyxy px around the points."""
        return np.concatenate([self.points.min(0), self.points.max(0)])

    def next_region(self) -> Region:
        """The region of the next pass."""
        return next_region(self.points)

    def settled(self) -> bool:
        """Whether the hand is clear and the next region nearly the same: no pass is needed."""
        after, before = self.next_region(), self.region
        moved = np.hypot(after.x - before.x, after.y - before.y) / before.side
        turned = np.abs(np.angle(np.exp(1j * (after.angle - before.angle))))
        grown = np.abs(np.log(after.side / before.side))
        return self.presence >= CLEAR and bool(max(moved, turned, grown) < SETTLED)

    def is_same(self, other: "HandEstimate") -> bool:
        """Whether two estimates are of one hand: keypoints agree, or one box is in the other."""
        boxes = self.box(), other.box()
        sides = [box[2:] - box[:2] for box in boxes]
        distance = np.linalg.norm(self.points - other.points, axis=-1).mean()
        if distance < SAME_KEYPOINTS * max(*sides[0], *sides[1]):
            return True
        low, high = np.maximum(*boxes)[:2], np.minimum(*boxes)[2:]
        common = np.prod(np.maximum(high - low, 0))
        return bool(common > SAME_BOX * min(np.prod(side) for side in sides))


def detect_hands(image: np.ndarray, people: Detections | None = None, max_hands: int = 16) -> Hands:
    """Detect the hands of a photo.

    Args:
      image: uint8 (H, W, 3), RGB, any size.
      people: the detected people. Hands are also searched at their wrists, each hand is assigned to
        a wrist, and the side of the body decides whether it is a right hand, as far as the wrist
        is known.
      max_hands: limit of the number of hands. Those of the highest scores are returned.

    Returns:
      the hands by decreasing score, each once.

    Raises:
      ValueError: no image.
      FileNotFoundError: the networks are missing.
    """
    check_image(image)
    # 1. Palms of the whole image.
    height, width = image.shape[:2]
    sides = [side * float(max(width, height)) for side in SEARCHES]
    squares = [Region(width / 2, height / 2, side, 0.0) for side in sides]
    found = [palm for square in squares for palm in palms.find(image, square)]
    hands = _found(image, [palm.region() for palm in found])
    # 2. Wrists at which no hand was found: beyond the forearm, and palms in a square around it.
    bodies = [] if people is None else people.keypoints.astype(np.float64)
    wrists = [wrist for i, keypoints in enumerate(bodies) for wrist in wrists_of(keypoints, i)]
    done = _matches(hands, wrists).values()
    starts: list[Region] = []
    for wrist in (wrist for wrist in wrists if wrist not in done):
        start = wrist.region()
        square = Region(start.x, start.y, SEARCH_PER_FOREARM * wrist.forearm, 0.0)
        starts += [start, *(palm.region() for palm in palms.find(image, square))]
    # 3. Each hand once, and whose it is.
    hands = _distinct(hands + _found(image, starts))[:max_hands]
    return _with_left_features(image, hands, _matches(hands, wrists))


def hand_in_box(image: np.ndarray, box: Float[np.ndarray, "4"]) -> Hands:
    """Detect the hand in a box, at most one; the arguments are those of `detect_hands`.

    Args:
      image: uint8 (H, W, 3), RGB.
      box: xyxy px.
    """
    x, y = (box[:2] + box[2:]) / 2
    side = PER_BOX * float(max(box[2:] - box[:2]))
    starts = [Region(float(x), float(y), side, turn * np.pi / 2) for turn in range(4)]
    return _with_left_features(image, _found(image, starts)[:1], {})


def preload() -> None:
    """Read the stored programs of `detect_hands`."""
    palms.preload()
    graph, weights = graph_runner.load(NETWORK)
    for batch in BATCHES:
        _landmarks.preload(weights, np.zeros((batch, SIZE, SIZE, 3), np.float32), graph)


def next_region(points: Float[np.ndarray, "21 2"]) -> Region:
    """The region that the keypoints of a hand define, px: the middle knuckle is above the wrist."""
    return Region(*palm_region(points).tolist())


def _found(image: np.ndarray, starts: Sequence[Region]) -> list[HandEstimate]:
    """The hands in regions of an image: passes of the network until the regions settle."""
    found: dict[int, HandEstimate] = {}  # the last estimate from each start that is a hand
    regions = dict(enumerate(starts))
    for _ in range(MOST_PASSES):
        hands = dict(zip(regions, estimates(image, list(regions.values())), strict=True))
        found |= {i: hand for i, hand in hands.items() if hand.presence >= MIN_PRESENCE}
        regions = {
            i: hand.next_region()
            for i, hand in hands.items()
            if hand.presence >= MIN_START_PRESENCE and not hand.settled()
        }
    return _distinct(list(found.values()))


def estimates(
    image: np.ndarray, regions: Sequence[Region], mirror: bool = False
) -> list[HandEstimate]:
    """Run the network on regions of an image.

    Args:
      mirror: give the network the mirror image of each region. Then only presence and features of
        the results have a meaning.
    """
    graph, weights = graph_runner.load(NETWORK)
    hands: list[HandEstimate] = []
    while len(hands) < len(regions):
        chosen = regions[len(hands) : len(hands) + BATCHES[-1]]
        batch = min(size for size in BATCHES if size >= len(chosen))
        crops = np.zeros((batch, SIZE, SIZE, 3), np.float32)
        for crop, region in zip(crops, chosen, strict=False):
            pixels = region.crop(image, SIZE)
            crop[:] = pixels[:, ::-1] if mirror else pixels
        outputs = [np.asarray(value) for value in _landmarks(weights, crops, graph)]
        hands += [_hand(region, *rows) for region, *rows in zip(chosen, *outputs, strict=False)]
    return hands


def _hand(
    region: Region,
    landmarks: Float[np.ndarray, "63"],
    world: Float[np.ndarray, "63"],
    presence: Float[np.ndarray, "1"],
    handedness: Float[np.ndarray, "1"],
    features: Float[np.ndarray, "7 7 672"],
) -> HandEstimate:
    """The estimate for one region, in the axes of the image."""
    points = landmarks.reshape(-1, 3).astype(np.float64)[:, :2]
    world = world.reshape(-1, 3).astype(np.float64)
    world = np.concatenate([world[:, :2] @ region.axes().T, world[:, 2:]], -1)
    # MediaPipe gives this number the label "Left" (handedness.txt), but expects a mirrored picture.
    right = float(handedness[0])
    points = region.to_image(points, SIZE)
    return HandEstimate(points, world, float(presence[0]), right, features, region)


def _distinct(hands: list[HandEstimate]) -> list[HandEstimate]:
    """Each hand once, by decreasing presence."""
    kept: list[HandEstimate] = []
    for hand in sorted(hands, key=lambda hand: -hand.presence):
        if not any(hand.is_same(other) for other in kept):
            kept.append(hand)
    return kept


def _matches(hands: list[HandEstimate], wrists: list[Wrist]) -> dict[int, Wrist]:
    """Hand -> the wrist at which it is. The closest pairs are matched first."""
    pairs = []
    for i, hand in enumerate(hands):
        for j, wrist in enumerate(wrists):
            distance = float(np.linalg.norm(hand.points[0] - wrist.point)) / hand.region.side
            if distance < NEAR_WRIST:
                pairs.append((distance, i, j))
    matched: dict[int, Wrist] = {}
    used: set[int] = set()
    for _, i, j in sorted(pairs):
        if i not in matched and j not in used:
            matched[i] = wrists[j]
            used.add(j)
    return matched


def rows_of(hands: list[HandEstimate], wrists: dict[int, Wrist], shape: tuple[int, ...]) -> Hands:
    """The hands as arrays. `shape` is height and width of the image; features as estimated."""
    rows = Hands.empty(len(hands))
    for i, hand in enumerate(hands):
        rows.boxes[i], rows.scores[i], rows.features[i] = hand.box(), hand.presence, hand.features
        inside = ((hand.points >= 0) & (hand.points <= shape[::-1])).all(-1)
        rows.keypoints[i, :, :2], rows.keypoints[i, :, 2] = hand.points, hand.presence * inside
        rows.keypoints3d[i] = hand.world
        region = hand.region
        rows.regions[i] = region.x, region.y, region.side, region.angle
        rows.right[i] = hand.right
        if (wrist := wrists.get(i)) is not None:
            rows.person[i], trust = wrist.person, wrist.confidence
            rows.right[i] = trust * wrist.right + (1.0 - trust) * hand.right
    return rows


def _with_left_features(
    image: np.ndarray, hands: list[HandEstimate], wrists: dict[int, Wrist]
) -> Hands:
    """The hands as arrays; the features of left ones are those of their mirror images."""
    rows = rows_of(hands, wrists, image.shape[:2])
    left = [i for i, right in enumerate(rows.right) if right < 0.5]
    regions = [hands[i].region for i in left]
    for i, mirrored in zip(left, estimates(image, regions, mirror=True), strict=True):
        rows.features[i] = mirrored.features
    return rows


@stored("graph")
def _landmarks(
    weights: dict[str, Array], crops: Float[Array, "B 224 224 3"], graph: Graph
) -> tuple[jax.Array, ...]:
    """Landmarks (B, 63), world (B, 63), presence (B, 1), handedness (B, 1), features."""
    names = ["landmarks", "world", "presence", "handedness", FEATURES]
    result = graph_runner.run(graph, weights, {graph.inputs[0]: crops}, names)
    return tuple(result[name] for name in names)
