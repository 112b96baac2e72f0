"""Finds people and their 2D keypoints, with Google's MoveNet and BlazePose in plain JAX."""
