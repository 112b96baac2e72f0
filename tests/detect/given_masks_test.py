"""Given masks in the form of detected ones: their cells, their place, and their silhouette."""

import numpy as np
import pytest

from genhmr_jax.core import silhouette_term
from genhmr_jax.detect.detections import MASK_SIZE, Detections
from genhmr_jax.detect.given_masks import GivenMasks, check_masks


def ellipse(width: int, height: int, x: float, y: float, a: float, b: float) -> np.ndarray:
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return ((column - x) / a) ** 2 + ((row - y) / b) ** 2 <= 1


def person(mask: np.ndarray, *keypoints: tuple[float, float]) -> Detections:
    """One person with this mask, and with keypoints at these places by turns."""
    people = Detections.empty(1)
    people.given[:] = 0
    places = [keypoints[i % len(keypoints)] for i in range(23)]
    people.keypoints[0] = [(*place, 1) for place in places]
    return GivenMasks.of([mask]).replace(people)


def sampled(people: Detections, points: np.ndarray) -> np.ndarray:
    """The cells of the mask at points (N, 2) px, by the frame's own definition."""
    frame = people.mask_frames[0].astype(float)
    u, v = np.linalg.solve(frame[:, :2], (points - frame[:, 2]).T) * MASK_SIZE
    return people.masks[0][v.astype(int), u.astype(int)]


def test_cells_are_means_of_pixels_where_the_frame_says():
    mask = ellipse(400, 300, 210.0, 140.0, 60, 110)
    people = person(mask, (210, 140))
    # The area and the centre of the mask, from the cells alone.
    frame, cells = people.mask_frames[0], people.masks[0]
    assert cells.sum() * (frame[0, 0] / MASK_SIZE) ** 2 == pytest.approx(mask.sum(), rel=0.005)
    at = (np.stack(np.meshgrid(*[np.arange(MASK_SIZE)] * 2), -1) + 0.5) / MASK_SIZE
    centre = (at * cells[..., None]).sum((0, 1)) / cells.sum()
    assert frame[:, :2] @ centre + frame[:, 2] == pytest.approx([210, 140], abs=0.1)
    # Every px that is two cells from the outline.
    column, row = np.meshgrid(np.arange(110, 310), np.arange(20, 260))
    inside, outside = (ellipse(400, 300, 210, 140, 60 + d, 110 + d) for d in (-6, 6))
    value = sampled(people, np.stack([column, row], -1).reshape(-1, 2) + 0.5).reshape(column.shape)
    assert (value[inside[20:260, 110:310]] == 1).all()
    assert (value[~outside[20:260, 110:310]] == 0).all()


def test_the_outline_of_the_silhouette_is_the_mask():
    """The targets of the refinement: the outline lies on the ellipse, to less than a px."""
    people = person(ellipse(400, 300, 210.0, 140.0, 60, 110), (210, 140), (190, 60))
    crop = np.array([[210, 140, 275]], np.float32)
    found = silhouette_term.targets(people, crop, 400, 300)
    x, y = (found.outline[0] - [210, 140]).T
    assert np.abs(np.hypot(x / 60, y / 110) - 1).max() < 0.02 and found.trust[0] == 1
    # The crop's corner cell is this far from the ellipse, and the middle is in it.
    corner = np.array([210, 140]) + 275 * (0.5 / 64 - 0.5)
    angle = np.linspace(0, 2 * np.pi, 20_000)
    on = np.stack([210 + 60 * np.cos(angle), 140 + 110 * np.sin(angle)], -1)
    distance = np.linalg.norm(on - corner, axis=-1).min() / 275
    assert found.outside[0, 0, 0] == pytest.approx(distance, abs=0.004)
    assert found.outside[0, 32, 32] == 0


def test_keypoints_off_the_mask_lower_the_trust():
    """As of a person who is half hidden: the mask ends, and the legs go on."""
    people = person(ellipse(400, 300, 210.0, 80.0, 40, 60), (210, 80), (210, 280))
    found = silhouette_term.targets(people, np.array([[210, 150, 260]], np.float32), 400, 300)
    assert found.trust[0] == 0


@pytest.mark.parametrize("x", [5.0, 395.0])
def test_a_person_who_is_cut_off_by_the_photo(x):
    mask = ellipse(400, 300, x, 150.0, 60, 120)
    boxes = GivenMasks.of([mask]).boxes
    assert boxes.min() >= 0 and boxes[0, 2] <= 400
    crop = np.array([[x, 150, 300]], np.float32)
    found = silhouette_term.targets(person(mask, (x, 150)), crop, 400, 300)
    edge = found.outline[0][:, 0] if x < 200 else 400 - found.outline[0][:, 0]
    assert edge.min() > 2, "the border of the photo is no outline"
    offset = (found.outline[0] - [x, 150]) / [60, 120]
    assert np.abs(np.hypot(*offset.T) - 1).max() < 0.03


def test_a_person_smaller_than_the_cells():
    mask = ellipse(64, 64, 30.0, 32.0, 6, 14)
    people = person(mask, (30, 32))
    cell = people.mask_frames[0, 0, 0] / MASK_SIZE
    assert people.masks.sum() * cell**2 == pytest.approx(mask.sum(), rel=0.02)


def test_each_person_gets_the_own_mask():
    """Rows of the detector are a choice of the given people."""
    masks = GivenMasks.of([ellipse(200, 100, x, 50, 15, 40) for x in (30, 100, 170)])
    people = Detections.empty(2)
    people.given[:] = [2, 0]
    people.keypoints[:] = [50, 50, 0]
    found = masks.replace(people)
    assert found.mask_frames[:, 0].sum(-1) == pytest.approx([230, 90], abs=1.5)  # side + start
    again = GivenMasks.joined([masks.only(np.array([2])), masks.only(np.array([0]))])
    people.given[:] = [0, 1]
    assert np.array_equal(again.replace(people).mask_frames, found.mask_frames)
    assert len(GivenMasks.joined([])) == 0


def test_masks_from_python():
    mask = ellipse(60, 40, 30, 20, 8, 15)
    assert len(check_masks(np.stack([mask, mask]), 40, 60)) == 2
    assert np.array_equal(check_masks(3 * mask[None], 40, 60).boxes, GivenMasks.of([mask]).boxes)
    assert len(check_masks(np.zeros((0, 40, 60)), 40, 60)) == 0
    with pytest.raises(ValueError, match=r"masks have shape \(40, 60\): \(P, 40, 60\) is needed"):
        check_masks(mask, 40, 60)
    with pytest.raises(ValueError, match="mask 2 of 2 is empty"):
        check_masks(np.stack([mask, 0 * mask]), 40, 60)
