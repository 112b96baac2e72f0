"""Rotations: axis-angle, matrices, 6D and quaternions, with gradients that are finite everywhere.

All functions take any leading batch axes. Axis-angle vectors are in radians; quaternions are (w, x,
y, z). A rotation matrix acts on column vectors: y = R x.

Two methods keep gradients finite. Where a formula is 0/0, a Taylor series replaces it, and the
unused branch gets a valid input ("double where"): a plain `where` would multiply the infinite
derivative of that branch by zero, which is NaN. And a matrix is converted to an axis-angle through
the quaternion, never through arccos of the trace, whose derivative is infinite at 0 and at pi.

Products of 3x3 matrices are sums of products, not `@`: the default precision of a matrix product is
about 1e-3 on TPUs and on newer GPUs.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

ROT6D_LAYOUTS = ("columns", "rows", "interleaved")
_PARALLEL = 1e-12  # squared sine of the angle between vectors that count as parallel
_SMALL = 1e-2  # radians squared: below it the series to second order is exact to float32


def compose(
    a: Float[Array, "*batch 3 3"], b: Float[Array, "*batch 3 3"]
) -> Float[Array, "*batch 3 3"]:
    """The product a b of 3x3 matrices in full precision on every device. Leading axes broadcast."""
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], axis=-2)


def rotate(
    matrix: Float[Array, "*batch 3 3"], vector: Float[Array, "*batch 3"]
) -> Float[Array, "*batch 3"]:
    """The product R v in full precision on every device. Leading axes broadcast."""
    return jnp.sum(matrix * vector[..., None, :], axis=-1)


def axis_angle_to_matrix(axis_angle: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3 3"]:
    """Rodrigues' formula R = I + (sin t / t) K + (1 - cos t) / t^2 K^2.

    t is the length of the vector and K its cross-product matrix.
    """
    x, y, z = axis_angle[..., 0], axis_angle[..., 1], axis_angle[..., 2]
    squared = x * x + y * y + z * z
    small = squared < _SMALL
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    a = jnp.where(small, 1.0 - squared / 6.0 + squared * squared / 120.0, jnp.sin(angle) / angle)
    half = jnp.sin(0.5 * angle) / angle
    b = jnp.where(small, 0.5 - squared / 24.0 + squared * squared / 720.0, 2.0 * half * half)
    # K^2 = v v^T - |v|^2 I, written out.
    rows = [
        [1.0 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y],
        [b * x * y + a * z, 1.0 - b * (x * x + z * z), b * y * z - a * x],
        [b * x * z - a * y, b * y * z + a * x, 1.0 - b * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def matrix_to_axis_angle(matrix: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 3"]:
    """Axis-angle of length 0..pi. At exactly pi both signs are correct; one of them is returned."""
    return quaternion_to_axis_angle(matrix_to_quaternion(matrix))


def axis_angle_to_quaternion(axis_angle: Float[Array, "*batch 3"]) -> Float[Array, "*batch 4"]:
    """Unit quaternion (w, x, y, z)."""
    squared = jnp.sum(axis_angle * axis_angle, axis=-1, keepdims=True)
    small = squared < _SMALL
    angle = jnp.sqrt(jnp.where(small, 1.0, squared))
    real = jnp.where(small, 1.0 - squared / 8.0 + squared * squared / 384.0, jnp.cos(0.5 * angle))
    scale = jnp.where(
        small, 0.5 - squared / 48.0 + squared * squared / 3840.0, jnp.sin(0.5 * angle) / angle
    )
    return jnp.concatenate([real, scale * axis_angle], axis=-1)


def quaternion_to_axis_angle(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3"]:
    """Axis-angle of length 0..pi of a quaternion of any length; q and -q are the same rotation.

    Zero, which is no rotation, and quaternions so short that their squares are zero, give a vector
    of finite length.
    """
    quaternion = jnp.where(quaternion[..., :1] < 0.0, -quaternion, quaternion)
    real, imaginary = quaternion[..., :1], quaternion[..., 1:]
    squared = jnp.sum(imaginary * imaginary, axis=-1, keepdims=True)
    small = squared <= 1e-3 * real * real
    sine = jnp.sqrt(jnp.where(small, 1.0, squared))
    cosine = jnp.where(small & (real * real > 0.0), real, 1.0)
    ratio = jnp.where(small, squared, 0.0) / (cosine * cosine)  # tan^2 of the half angle
    series = 2.0 * (1.0 - ratio / 3.0 + ratio * ratio / 5.0) / cosine
    return imaginary * jnp.where(small, series, 2.0 * jnp.arctan2(sine, real) / sine)


def quaternion_to_matrix(quaternion: Float[Array, "*batch 4"]) -> Float[Array, "*batch 3 3"]:
    """Rotation matrix of a quaternion (w, x, y, z) of any non-zero length."""
    w, x, y, z = (quaternion[..., i] for i in range(4))
    length = w * w + x * x + y * y + z * z
    s = 2.0 / jnp.where(length > 0.0, length, 1.0)
    rows = [
        [1.0 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)],
        [s * (x * y + w * z), 1.0 - s * (x * x + z * z), s * (y * z - w * x)],
        [s * (x * z - w * y), s * (y * z + w * x), 1.0 - s * (x * x + y * y)],
    ]
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def matrix_to_quaternion(matrix: Float[Array, "*batch 3 3"]) -> Float[Array, "*batch 4"]:
    """Unit quaternion (w, x, y, z) with w >= 0.

    Shepperd's method: 4 q q^T is linear in the matrix, and each of its rows is a multiple of the
    quaternion. The row with the largest diagonal entry has at least the length 2, so that division
    by its length is safe everywhere.
    """
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    wx, wy, wz = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    diagonal = jnp.stack(
        [
            1.0 + m[0][0] + m[1][1] + m[2][2],
            1.0 + m[0][0] - m[1][1] - m[2][2],
            1.0 - m[0][0] + m[1][1] - m[2][2],
            1.0 - m[0][0] - m[1][1] + m[2][2],
        ],
        axis=-1,
    )
    ww, xx, yy, zz = (diagonal[..., i] for i in range(4))
    rows = [[ww, wx, wy, wz], [wx, xx, xy, xz], [wy, xy, yy, yz], [wz, xz, yz, zz]]
    rows = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    chosen = jax.nn.one_hot(jnp.argmax(diagonal, axis=-1), 4, dtype=matrix.dtype)
    quaternion = _normalise(jnp.sum(rows * chosen[..., None], axis=-2))
    return jnp.where(quaternion[..., :1] < 0.0, -quaternion, quaternion)


def rot6d_to_matrix(x: Float[Array, "*batch 6"], layout: str) -> Float[Array, "*batch 3 3"]:
    """The rotation matrix of a 6D representation, by Gram-Schmidt.

    Zhou et al., "On the continuity of rotation representations", CVPR 2019. Any network output is
    allowed. If the two vectors are zero or parallel, the result is finite but not a rotation: the
    part of the second one across the first is then left out, because it consists of rounding
    errors, and its direction would have gradients of 1e8.

    Args:
      x: six numbers.
      layout: there is no default, because three incompatible layouts are in use and a wrong one
        gives plausible but wrong poses. "columns": the first three and the last three numbers are
        the first two columns (HMR2 / 4D-Humans). "rows": they are the first two rows (TokenHMR,
        PyTorch3D). "interleaved": the numbers as (3, 2) are the first two columns (SPIN and its
        mean parameters).

    Raises:
      ValueError: unknown layout, or a last axis that is not 6.
    """
    _check_layout(layout, x.shape[-1:], (6,))
    if layout == "interleaved":
        a1, a2 = x[..., 0::2], x[..., 1::2]
    else:
        a1, a2 = x[..., :3], x[..., 3:]
    b1 = _normalise(a1)
    across = a2 - jnp.sum(b1 * a2, axis=-1, keepdims=True) * b1
    squared, whole = (jnp.sum(x * x, axis=-1, keepdims=True) for x in (across, a2))
    b2 = _normalise(jnp.where(squared > _PARALLEL * whole, across, 0.0))
    b3 = jnp.cross(b1, b2)
    return jnp.stack([b1, b2, b3], axis=-2 if layout == "rows" else -1)


def matrix_to_rot6d(matrix: Float[Array, "*batch 3 3"], layout: str) -> Float[Array, "*batch 6"]:
    """The 6D representation of a rotation matrix, the inverse of `rot6d_to_matrix`.

    Raises:
      ValueError: unknown layout, or last axes that are not (3, 3).
    """
    _check_layout(layout, matrix.shape[-2:], (3, 3))
    if layout == "rows":
        two = matrix[..., :2, :]
    elif layout == "columns":
        two = jnp.swapaxes(matrix[..., :, :2], -1, -2)
    else:
        two = matrix[..., :, :2]
    return two.reshape(*matrix.shape[:-2], 6)


def geodesic_angle(
    a: Float[Array, "*batch 3 3"], b: Float[Array, "*batch 3 3"]
) -> Float[Array, "*batch"]:
    """Angle (radians, 0..pi) of the rotation between two rotations.

    It is computed from the quaternion of a^T b, which is accurate for small angles, where arccos of
    the trace has an error of 3e-4 rad in float32. The gradient is 0 where a = b.
    """
    quaternion = matrix_to_quaternion(compose(jnp.swapaxes(a, -1, -2), b))
    squared = jnp.sum(quaternion[..., 1:] ** 2, axis=-1)
    positive = squared > 0.0
    sine = jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)
    return 2.0 * jnp.arctan2(sine, quaternion[..., 0])


def _normalise(x: Float[Array, "*batch n"]) -> Float[Array, "*batch n"]:
    """x / |x|; a zero vector stays zero, with a finite gradient."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.where(squared > 1e-20, squared, 1.0))


def _check_layout(layout: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if layout not in ROT6D_LAYOUTS:
        raise ValueError(f"unknown 6D layout {layout!r}: choose one of {', '.join(ROT6D_LAYOUTS)}")
    if shape != wanted:
        raise ValueError(f"expected last axes {wanted}, got {shape}")
