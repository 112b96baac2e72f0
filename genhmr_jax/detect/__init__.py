"""Detection of people and their keypoints, with Google's MoveNet and BlazePose in plain JAX."""
