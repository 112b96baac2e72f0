"""A second search: people who are not upright, who fill more than the picture, or whose estimate is
uncertain.

MoveNet knows upright people best, and BlazePose needs the direction in which a person is upright.
Where the first search finds nobody, or a person whose expected errors are large, this one starts
again in other ways: MoveNet in the picture turned by quarter turns, and BlazePose in larger regions
in each of these directions. The expected errors of the lifter decide between the estimates.
"""

import numpy as np
from jaxtyping import Float

from genhmr_jax.detect import movenet
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.detections import enough_keypoints
from genhmr_jax.detect.person import FoundPerson, estimate_in, first_region
from genhmr_jax.detect.pose_estimate import IS_PERSON, PoseEstimate
from genhmr_jax.geometry.boxes import box_overlap, share_of_smaller
from genhmr_jax.geometry.keypoints import keypoint_bounds

UNCERTAIN = 0.03
"""Uncertainty of a pose (PoseEstimate) above which others are tried."""
BETTER = 0.8
"""Largest uncertainty of a pose that replaces another one, as a share of that one's."""
USABLE, SURE = 0.1, 0.035
"""Largest uncertainty of an estimate that replaces one, and of people whom only this search finds.

Of the only person of the picture, any usable estimate counts, if MoveNet's score in one of the
directions is at least NEAR_MISS and the mask covers COVERED of the region. In 241 pictures of empty
rooms and landscapes the first search finds 9 people, this one 4 more.
"""
NEAR_MISS, COVERED = 0.1, 0.1
"""See above. From NEAR_MISS, the first search also accepts a person whom BlazePose confirms."""
SIDES = (1.0, 1.6)
"""Sides of the tried regions over those of the picture, or of the box with its margin."""
SHARED = 0.5
"""Intersection of two boxes, as a share of the smaller one, from which they are of one person."""
IN_BOX = 0.3
"""Intersection over union with a box of the user from which a person may be meant by it."""
KEYPOINT_MARGIN = 0.1  # of a box around keypoints, as a share of its sides
TURNS = range(4)
MOST_TRIED = 3
"""Of several people, how many get other regions: a crowd would take many seconds."""


def search_again(
    image: np.ndarray, people: list[FoundPerson], threshold: float, network: str, alone: bool
) -> list[FoundPerson]:
    """The people of an image with those whom the first search overlooked.

    If all its people are certain, nothing is searched.

    Args:
      image: uint8 (H, W, 3).
      people: those of the first search.
      threshold: smallest score of MoveNet.
      network: the BlazePose to use.
      alone: whether the first search found nobody else.

    Returns:
      the same people, some of them with another estimate; then the new ones.
    """
    certain = [person for person in people if not is_uncertain(person.pose)]
    uncertain = [person for person in people if is_uncertain(person.pose)]
    if people and not uncertain:
        return people
    # 1. Larger regions. The box of the only person may be wrong: the whole picture is tried then.
    height, width = image.shape[:2]
    if alone and len(people) < 2:
        starts = _regions(np.array([width, height]) / 2, max(width, height))
    else:
        tried = uncertain[:MOST_TRIED]
        starts = [start for person in tried for start in _regions_of_box(person.box)]
    poses = [estimate_in(image, start, network) for start in starts]
    found = [_of_pose(pose, (width, height)) for pose in poses if _is_usable(pose)]
    # 2. MoveNet in the turned picture; without people, also where its score is low.
    least, best_score = threshold if people else min(threshold, NEAR_MISS), 0.0
    for turns in TURNS[1:] if people else TURNS:
        for box, score, coco in zip(*movenet.find_turned(image, turns, least), strict=True):
            best_score = max(best_score, float(score))
            if any(shared(box, person.box) for person in certain):
                continue  # it would replace nobody
            start = first_region(box, coco, turns * np.pi / 2)
            pose = estimate_in(image, start, network, coco, box)
            found += [FoundPerson(box, float(score), pose)] if _is_usable(pose) else []
    # 3. The best ones. A doubtful one is better than none.
    answer = merged(people, found)
    if answer or best_score < min(threshold, NEAR_MISS):
        return answer
    doubtful = [person for person in found if person.pose.mask.mean() >= COVERED]
    return sorted(doubtful, key=lambda person: person.pose.uncertainty)[:1]


def search_in_box(image: np.ndarray, person: FoundPerson, network: str) -> FoundPerson:
    """The person of a box of the user, with another estimate if the first one is uncertain.

    The regions are larger than the box. Whoever is beside it is another person.
    """
    if not is_uncertain(person.pose):
        return person
    size = image.shape[1], image.shape[0]
    starts = _regions_of_box(person.box)
    poses = [pose for pose in (estimate_in(image, s, network) for s in starts) if _is_usable(pose)]
    poses = [p for p in poses if box_overlap(_of_pose(p, size).box, person.box) > IN_BOX]
    best = min(poses, key=lambda pose: pose.uncertainty, default=person.pose)
    if best.uncertainty > BETTER * person.pose.uncertainty:
        return person
    return FoundPerson(person.box, best.person, best)


def _regions(middle: Float[np.ndarray, "2"], side: float) -> list[Region]:
    """Regions of several sides in all directions."""
    angles = [turns * np.pi / 2 for turns in TURNS]
    return [Region(*map(float, middle), factor * side, a) for factor in SIDES for a in angles]


def _regions_of_box(box: Float[np.ndarray, "4"]) -> list[Region]:
    """The same around a box xyxy with its margin."""
    start = first_region(box, None)
    return _regions(np.array([start.x, start.y]), start.side)


def _is_usable(pose: PoseEstimate) -> bool:
    """Whether an estimate may be that of a body."""
    usable = pose.person >= IS_PERSON and pose.uncertainty <= USABLE
    return bool(usable and enough_keypoints(pose.keypoints))


def _of_pose(pose: PoseEstimate, size: tuple[int, int]) -> FoundPerson:
    """A person whom MoveNet does not know, in an image of a width and height."""
    (bounds,) = keypoint_bounds(pose.keypoints[None]).astype(np.float64)
    margin = KEYPOINT_MARGIN * np.tile(bounds[2:] - bounds[:2], 2) * [-1, -1, 1, 1]
    box = np.clip(bounds + margin, 0, np.tile(size, 2))
    return FoundPerson(box, float(pose.keypoints[:, 2].mean()), pose)


def merged(people: list[FoundPerson], found: list[FoundPerson]) -> list[FoundPerson]:
    """The people, some with another estimate of `found`; and the new ones among these.

    An estimate replaces that of an uncertain person if it is better, and nobody whom it overlaps is
    more certain. A box that agrees with it is kept. The most certain estimates come first, so that
    later ones do not replace them.
    """
    answer = list(people)
    for other in sorted(found, key=lambda person: person.pose.uncertainty):
        rivals = [i for i, person in enumerate(answer) if shared(other.box, person.box)]
        if not rivals:
            answer += [other] if other.pose.uncertainty <= SURE else []
        elif other.pose.uncertainty < min(_limit(answer[i].pose) for i in rivals):
            # Of two people who embrace, it is that of the one whose box is more like its own.
            nearest = max(rivals, key=lambda i: box_overlap(answer[i].box, other.box))
            box, score = answer[nearest].box, answer[nearest].score
            box = box if box_overlap(box, other.box) > SHARED else other.box
            answer[nearest] = FoundPerson(box, max(score, other.score), other.pose)
    return answer


def is_uncertain(pose: PoseEstimate) -> bool:
    """Whether other estimates should be tried."""
    return pose.uncertainty > UNCERTAIN


def shared(box: Float[np.ndarray, "4"], other: Float[np.ndarray, "4"]) -> bool:
    """Whether two boxes may be of one person; see SHARED."""
    return bool(share_of_smaller(box, other) > SHARED)


def _limit(pose: PoseEstimate) -> float:
    """The uncertainty below which another estimate replaces this one."""
    return BETTER * pose.uncertainty if is_uncertain(pose) else 0.0
