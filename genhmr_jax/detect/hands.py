"""Hands: 21 keypoints of each hand of a photo, from MediaPipe's hand landmark network.

The lifter (detect/hand_lifter.py) corrects them.

A hand is searched by the palm detector (detect/palms.py) in the whole image. It misses small hands:
at each wrist of the detected people without a hand, the search is repeated in a square around it,
and begins also in line with the forearm. The network runs again on the region that its landmarks
define until this region settles.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from smpl_jax.keypoints import HAND21

from genhmr_jax.detect import hand_landmarks, hand_lifter, palms
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import check_image
from genhmr_jax.detect.hand_landmarks import CHANNELS, GRID, HandEstimate
from genhmr_jax.detect.hand_lifter import LiftedHand
from genhmr_jax.detect.wrists import SEARCH_PER_FOREARM, Wrist, wrists_of
from genhmr_jax.geometry.hand_crop import confidence_of

ENCODER = "hand_landmarks"
"""The name of the network as an image encoder."""
MIN_PRESENCE = 0.5
# Sides of the squares in which palms are searched, in sides of the image. The palm detector misses
# many hands that fill a large part of its input: in a larger square they are smaller.
SEARCHES = (1.0, 2.0)
MOST_PASSES = 4  # MediaPipe's video takes one pass a frame, and settles in the same way
# Below it no pass follows. The first regions may cut a hand, so that its presence is low there.
MIN_START_PRESENCE = 0.1
PER_BOX = 1.6  # side of the first region over that of a box that the user gives
# The second look at a hand: its side over that of the first one, and its turn in radians.
LOOK_SIDE, LOOK_TURN = 1.1, 0.2
# Logarithm of the odds of a right hand for that of the ratio of the lifter's expected errors.
SIDE_PER_SPREAD = 4.0
NEAR_WRIST = 0.5  # distance of the wrists of hand and body, in sides of the hand's region


@dataclasses.dataclass(frozen=True)
class Hands:
    """H hands of a photo.

    Attributes:
      boxes: (H, 4) xyxy px around the keypoints; may reach beyond the image.
      scores: (H,) probability 0..1 that there is a hand.
      keypoints: (H, 21, 3) x px, y px and confidence 0..1, in the order of HAND21. The
        confidence is the hand's score, times one that follows from the expected error of the
        keypoint (geometry.hand_crop.confidence_of); it is 0 outside the image.
      keypoints3d: (H, 21, 3) metres from the wrist, in the axes of the photo: x right, y down, z
        away from the camera.
      right: (H,) probability 0..1 that it is a right hand.
      features: (H, 7, 7, 672) the map of the lifter's trunk, in the axes of the region. Of a left
        hand it is that of the mirror image, in which it is a right hand.
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
    return _described(image, hands, _matches(hands, wrists))


def hand_in_box(image: np.ndarray, box: Float[np.ndarray, "4"]) -> Hands:
    """Detect the hand in a box, at most one; the arguments are those of `detect_hands`.

    Args:
      image: uint8 (H, W, 3), RGB.
      box: xyxy px.
    """
    x, y = (box[:2] + box[2:]) / 2
    side = PER_BOX * float(max(box[2:] - box[:2]))
    starts = [Region(float(x), float(y), side, turn * np.pi / 2) for turn in range(4)]
    return _described(image, _found(image, starts)[:1], {})


def preload() -> None:
    """Read the stored programs of `detect_hands`."""
    palms.preload()
    hand_landmarks.preload()
    hand_lifter.preload()


def _found(image: np.ndarray, starts: Sequence[Region]) -> list[HandEstimate]:
    """The hands in regions of an image: passes of the network until the regions settle."""
    found: dict[int, HandEstimate] = {}  # the last estimate from each start that is a hand
    regions = dict(enumerate(starts))
    for _ in range(MOST_PASSES):
        seen = hand_landmarks.estimates(image, list(regions.values()))
        hands = dict(zip(regions, seen, strict=True))
        found |= {i: hand for i, hand in hands.items() if hand.presence >= MIN_PRESENCE}
        regions = {
            i: hand.next_region()
            for i, hand in hands.items()
            if hand.presence >= MIN_START_PRESENCE and not hand.settled()
        }
    return _distinct(list(found.values()))


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


def _described(image: np.ndarray, hands: list[HandEstimate], wrists: dict[int, Wrist]) -> Hands:
    """The hands as arrays. The lifter gets a left hand as its mirror image: a right hand."""
    # 1. Left or right: from the region and its mirror image, and from the wrist.
    regions = [hand.region for hand in hands]
    flipped = hand_landmarks.estimates(image, regions, [True] * len(hands))
    lifted = hand_lifter.lifted(hands), hand_lifter.lifted(flipped)
    right = [_right(*both) for both in zip(hands, flipped, *lifted, strict=True)]
    person = np.full(len(hands), -1)
    for i, wrist in wrists.items():
        person[i], trust = wrist.person, wrist.confidence
        right[i] = trust * wrist.right + (1.0 - trust) * right[i]
    # 2. A second look at each, on its side.
    choose = lambda own, other: [
        a if side >= 0.5 else b for side, a, b in zip(right, own, other, strict=True)
    ]
    rows = rows_of(hands, two_looks(image, choose(hands, flipped), choose(*lifted)), image.shape)
    return dataclasses.replace(rows, right=np.float32(right), person=person)


def _right(hand: HandEstimate, flipped: HandEstimate, own: LiftedHand, other: LiftedHand) -> float:
    """The probability of a right hand: `flipped` and `other` are of the mirror image.

    The landmark network's probabilities are averaged. The lifter, which knows right hands only,
    expects smaller errors where it sees one.
    """
    sure = np.clip([hand.right, flipped.right], 1e-4, 1 - 1e-4)
    surer = np.log(other.spread.mean() / own.spread.mean())
    logit = np.mean(np.log(sure / (1 - sure))) + SIDE_PER_SPREAD * surer
    return float(1.0 / (1.0 + np.exp(-logit)))


def two_looks(
    image: np.ndarray, hands: list[HandEstimate], lifted: list[LiftedHand]
) -> list[LiftedHand]:
    """The lifter's estimates of right hands, averaged with those in other regions.

    Args:
      lifted: the estimates in the regions of `hands`.
    """
    other = lambda r: Region(r.x, r.y, LOOK_SIDE * r.side, r.angle + LOOK_TURN)
    regions, mirrored = [other(hand.region) for hand in hands], [hand.mirrored for hand in hands]
    again = hand_landmarks.estimates(image, regions, mirrored)
    pairs = zip(again, lifted, hand_lifter.lifted(again), strict=True)
    return [
        hand_lifter.mean_of_two(first, second) if seen.presence >= MIN_PRESENCE else first
        for seen, first, second in pairs
    ]


def rows_of(hands: list[HandEstimate], lifted: list[LiftedHand], shape: tuple[int, ...]) -> Hands:
    """The hands as arrays, of nobody. `shape`: height and width of the image."""
    rows = Hands.empty(len(hands))
    for i, (hand, own) in enumerate(zip(hands, lifted, strict=True)):
        rows.boxes[i] = np.concatenate([own.points.min(0), own.points.max(0)])
        rows.scores[i], rows.features[i], rows.right[i] = hand.presence, own.features, hand.right
        inside = ((own.points >= 0) & (own.points <= [shape[1], shape[0]])).all(-1)
        sure = hand.presence * confidence_of(own.spread)
        rows.keypoints[i, :, :2], rows.keypoints[i, :, 2] = own.points, sure * inside
        rows.keypoints3d[i] = own.points3d
        region = hand.region
        rows.regions[i] = region.x, region.y, region.side, region.angle
    return rows
