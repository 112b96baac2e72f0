"""Overlaps of boxes whose areas are known."""

import numpy as np
import pytest

from genhmr_jax.geometry.boxes import box_areas, box_overlap, share_of_smaller

BOXES = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [2, 2, 4, 7]], float)


def test_areas():
    assert box_areas(BOXES).tolist() == [100, 100, 100, 10]
    assert box_areas(np.array([[3, 0, 1, 5.0], [3, 3, 3, 5]])).tolist() == [0, 0]


def test_overlaps():
    assert box_overlap(BOXES, BOXES[0]) == pytest.approx([1, 1 / 3, 0, 0.1])
    assert share_of_smaller(BOXES, BOXES[0]) == pytest.approx([1, 0.5, 0, 1])
    for function in (box_overlap, share_of_smaller):
        pairs = function(BOXES[:, None], BOXES[None])
        np.testing.assert_array_equal(pairs, pairs.T)
        np.testing.assert_array_equal(pairs[:, 0], function(BOXES, BOXES[0]))
        assert np.shape(function(BOXES[0], BOXES[1])) == ()


def test_boxes_without_an_area():
    point = np.array([1, 1, 1, 1.0])
    assert box_overlap(point, point) == share_of_smaller(point, BOXES[0]) == 0
