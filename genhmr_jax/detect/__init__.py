"""The eyes: finds people and their 2D keypoints, with Google's MoveNet and BlazePose in plain JAX."""

from genhmr_jax.detect.detector import Detections, detect, keypoints_in_boxes

__all__ = ["Detections", "detect", "keypoints_in_boxes"]
