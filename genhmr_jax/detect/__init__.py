"""The eyes: finds people and their 2D keypoints, with Google's MoveNet and BlazePose in plain JAX."""

from genhmr_jax.detect.detector import (
    IS_PERSON,
    Detections,
    check_image,
    detect,
    keypoints_in_boxes,
    look_at,
    looks,
)

__all__ = ["IS_PERSON", "Detections", "check_image", "detect", "keypoints_in_boxes", "look_at", "looks"]
