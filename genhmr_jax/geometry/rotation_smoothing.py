"""Rotations over time that are smooth, where some frames are better known than others. NumPy."""

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

REACH = 3.0
"""Standard deviations of the kernel beyond which a frame does not count."""


def smoothed(
    found: Float[np.ndarray, "F J 3"],
    weights: Float[np.ndarray, "F"],
    usual: Float[np.ndarray, "F J 3"],
    times: Float[np.ndarray, "F"],
    deviation: float,
    trust: float,
) -> tuple[Float[np.ndarray, "F J 3"], Float[np.ndarray, "F"]]:
    """Weighted means of rotations under a Gaussian kernel, and what is usual where none is known.

    The mean is that of Markley et al. ("Averaging Quaternions", 2007, eq. 12): the eigenvector of
    the largest eigenvalue of sum w q q^T. The usual rotation of the frame has the weight `trust`,
    relative to that of a kernel in which every frame has the weight 1.

    Args:
      found: axis-angle, radians.
      weights: of each frame, 0 where nothing was found.
      usual: axis-angle, radians.
      times: seconds, increasing.
      deviation: of the kernel, seconds.
      trust: weight of `usual`, above 0.

    Returns:
      axis-angle; and the share of what was found in each frame, 0..1.
    """
    quaternions = lambda turns: (
        Rotation.from_rotvec(np.asarray(turns, np.float64).reshape(-1, 3))
        .as_quat()
        .reshape(*np.shape(turns)[:2], 4)
    )
    outer = lambda q: q[..., :, None] * q[..., None, :]
    ours, prior = outer(quaternions(found)), outer(quaternions(usual))
    times, weights = np.asarray(times, np.float64), np.asarray(weights, np.float64)
    sums, shares = np.empty_like(prior), np.empty(len(times))
    for frame, time in enumerate(times):
        near = slice(*np.searchsorted(times, [time - REACH * deviation, time + REACH * deviation]))
        kernel = np.exp(-0.5 * ((times[near] - time) / deviation) ** 2)
        part = kernel * weights[near] / kernel.sum()
        sums[frame] = np.einsum("t,tjab->jab", part, ours[near]) + trust * prior[frame]
        shares[frame] = part.sum() / (part.sum() + trust)
    turns = np.linalg.eigh(sums)[1][..., -1]
    means = Rotation.from_quat(turns.reshape(-1, 4)).as_rotvec().reshape(np.shape(found))
    return means, shares
