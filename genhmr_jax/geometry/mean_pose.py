"""The mean pose: a baseline, and the initial output of regressors."""

import numpy as np

# The mean rotation of each joint but the root over the training split of the CMU mocap corpus, made
# symmetric; axis-angle, radians.
_MEAN_BODY_POSE = np.array([
    [-0.4, 0.03, -0.06], [-0.4, -0.03, 0.06], [0.08, 0, 0],  # hips, spine1
    [0.68, 0.02, 0.14], [0.68, -0.02, -0.14], [0.02, 0, 0],  # knees, spine2
    [-0.12, 0.09, -0.02], [-0.12, -0.09, 0.02], [-0.04, 0, 0],  # ankles, spine3
    [-0.02, 0, 0], [-0.02, 0, 0], [0.09, 0, 0],  # feet, neck
    [-0.02, -0.06, -0.19], [-0.02, 0.06, 0.19], [0.09, 0, 0],  # collars, head
    [0.23, -0.47, -0.86], [0.23, 0.47, 0.86],  # shoulders
    [-0.04, -1.0, 0.45], [-0.04, 1.0, -0.45],  # elbows
    [0, -0.01, 0.45], [0, 0.01, -0.45], [0, 0, 0], [0, 0, 0],  # wrists, hands
], np.float32)  # fmt: skip
MEAN_POSE_72 = np.concatenate([np.array([np.pi, 0, 0], np.float32), _MEAN_BODY_POSE.reshape(69)])
"""(72,): the mean pose, upright and facing the camera."""
