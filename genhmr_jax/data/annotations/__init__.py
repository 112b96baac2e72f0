"""Boxes, keypoints and cameras of the user, in JSON."""
