import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smpl_jax import rotations as rot
from smpl_reference import rodrigues

TO_MATRIX = jax.jit(jax.vmap(jax.jacobian(rot.axis_angle_to_matrix)))
ROUND_TRIP = jax.jit(
    jax.vmap(jax.jacobian(lambda v: rot.matrix_to_axis_angle(rot.axis_angle_to_matrix(v))))
)
DISTANCE = jax.jit(
    jax.vmap(jax.grad(lambda v: rot.geodesic_angle(jnp.eye(3), rot.axis_angle_to_matrix(v))))
)
ANGLES = [0.0, 1e-7, 1e-4, 1e-2, 0.0999, 0.1001, 1.0, 2.5, np.pi - 1e-3, np.pi - 1e-6, np.pi]


def vectors(angle, count=16):
    rng = np.random.default_rng(0)
    axes = rng.normal(size=(count, 3))
    axes[:3] = np.eye(3)
    return axes / np.linalg.norm(axes, axis=-1, keepdims=True) * angle


@pytest.mark.parametrize("angle", [*ANGLES, 4.0, 7.0])
def test_axis_angle_to_matrix(angle):
    got = rot.axis_angle_to_matrix(jnp.asarray(vectors(angle)))
    np.testing.assert_allclose(got, [rodrigues(v) for v in vectors(angle)], atol=1e-6)


@pytest.mark.parametrize("angle", ANGLES)
def test_matrix_to_axis_angle_gives_the_same_rotation(angle):
    true = np.stack([rodrigues(v) for v in vectors(angle)])
    got = rot.matrix_to_axis_angle(jnp.asarray(true))
    np.testing.assert_allclose([rodrigues(np.float64(v)) for v in got], true, atol=2e-6)
    assert np.all(np.linalg.norm(got, axis=-1) <= np.pi + 1e-6)
    if angle < 3:
        np.testing.assert_allclose(got, vectors(angle), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("angle", [*ANGLES, 4.0])
def test_quaternions(angle):
    vector = vectors(angle)
    half = np.concatenate(
        [np.full((16, 1), np.cos(angle / 2)), np.sinc(angle / 2 / np.pi) / 2 * vector], -1
    )
    got = rot.axis_angle_to_quaternion(jnp.asarray(vector))
    np.testing.assert_allclose(got, half, atol=5e-7)
    true = np.stack([rodrigues(v) for v in vector])
    np.testing.assert_allclose(rot.quaternion_to_matrix(3.0 * got), true, atol=2e-6)
    np.testing.assert_allclose(
        rot.quaternion_to_matrix(rot.matrix_to_quaternion(jnp.asarray(true))), true, atol=2e-6
    )
    for sign in (1.0, -2.0):
        back = rot.quaternion_to_axis_angle(sign * got)
        np.testing.assert_allclose([rodrigues(np.float64(v)) for v in back], true, atol=2e-6)


def test_quaternion_is_wxyz():
    np.testing.assert_allclose(
        rot.axis_angle_to_quaternion(jnp.array([0.0, 0.0, np.pi / 2])),
        [0.5**0.5, 0, 0, 0.5**0.5],
        atol=1e-6,
    )


def test_rot6d_layouts_by_hand():
    """Each layout's six numbers, written from its definition."""
    matrix = rodrigues(np.array([0.3, -0.9, 0.5]))
    six = {
        "columns": np.r_[matrix[:, 0], matrix[:, 1]],
        "rows": np.r_[matrix[0], matrix[1]],
        "interleaved": np.array(
            [matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1], matrix[2, 0], matrix[2, 1]]
        ),
    }
    assert set(six) == set(rot.ROT6D_LAYOUTS)
    for layout, numbers in six.items():
        np.testing.assert_allclose(
            rot.matrix_to_rot6d(jnp.asarray(matrix), layout), numbers, atol=1e-6
        )
        np.testing.assert_allclose(
            rot.rot6d_to_matrix(jnp.asarray(numbers), layout), matrix, atol=1e-6
        )


def test_spin_mean_parameters_read_only_in_their_own_layout():
    """SPIN stores Rx(180 degrees) as [1, 0, 0, -1, 0, 0]."""
    spin = jnp.array([1.0, 0.0, 0.0, -1.0, 0.0, 0.0])
    np.testing.assert_allclose(
        rot.rot6d_to_matrix(spin, "interleaved"), np.diag([1, -1, -1]), atol=1e-6
    )
    assert abs(np.linalg.det(rot.rot6d_to_matrix(spin, "columns"))) < 1e-6


@pytest.mark.parametrize("layout", rot.ROT6D_LAYOUTS)
def test_rot6d_of_any_numbers_is_a_rotation(layout):
    x = np.random.default_rng(0).normal(size=(50, 2, 6))
    matrix = rot.rot6d_to_matrix(jnp.asarray(x), layout)
    np.testing.assert_allclose(
        matrix @ np.swapaxes(matrix, -1, -2), np.broadcast_to(np.eye(3), (50, 2, 3, 3)), atol=2e-6
    )
    np.testing.assert_allclose(np.linalg.det(matrix), 1.0, atol=2e-6)
    again = rot.rot6d_to_matrix(rot.matrix_to_rot6d(matrix, layout), layout)
    np.testing.assert_allclose(again, matrix, atol=2e-6)


def test_rot6d_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="unknown 6D layout"):
        rot.rot6d_to_matrix(jnp.zeros(6), "hmr")
    with pytest.raises(ValueError, match="last axes"):
        rot.rot6d_to_matrix(jnp.zeros(9), "rows")
    with pytest.raises(ValueError, match="last axes"):
        rot.matrix_to_rot6d(jnp.zeros(9), "rows")


@pytest.mark.parametrize("angle", ANGLES)
def test_geodesic_angle(angle):
    base = rodrigues(np.array([0.4, 1.1, -0.7]))
    other = np.stack([base @ rodrigues(v) for v in vectors(angle)])
    np.testing.assert_allclose(
        rot.geodesic_angle(jnp.asarray(base), jnp.asarray(other)), angle, atol=1e-6
    )


def _numeric_jacobian(function, x, step):
    columns = []
    for i in np.ndindex(x.shape):
        shift = np.zeros(x.shape)
        shift[i] = step
        columns.append(
            (np.float64(function(x + shift)) - np.float64(function(x - shift))) / (2 * step)
        )
    return np.stack(columns, -1).reshape(*columns[0].shape, *x.shape)


@pytest.mark.parametrize("angle", ANGLES)
def test_gradients_of_axis_angle_to_matrix(angle):
    numeric = [_numeric_jacobian(rodrigues, vector, 1e-6) for vector in vectors(angle)]
    np.testing.assert_allclose(TO_MATRIX(jnp.asarray(vectors(angle))), numeric, atol=2e-5)


@pytest.mark.parametrize("angle", [a for a in ANGLES if a < 3])
def test_gradients_of_matrix_to_axis_angle(angle):
    """Along the rotations: d log(exp(v)) / dv is the identity."""
    np.testing.assert_allclose(
        ROUND_TRIP(jnp.asarray(vectors(angle))), np.broadcast_to(np.eye(3), (16, 3, 3)), atol=2e-4
    )


@pytest.mark.parametrize(
    "function",
    [
        lambda v: rot.matrix_to_axis_angle(rot.axis_angle_to_matrix(v)),
        lambda v: rot.quaternion_to_axis_angle(rot.axis_angle_to_quaternion(v)),
        lambda v: rot.quaternion_to_matrix(rot.axis_angle_to_quaternion(v)),
        lambda v: rot.matrix_to_quaternion(rot.axis_angle_to_matrix(v)),
        lambda v: rot.geodesic_angle(jnp.eye(3), rot.axis_angle_to_matrix(v)),
        lambda v: rot.rot6d_to_matrix(
            rot.matrix_to_rot6d(rot.axis_angle_to_matrix(v), "rows"), "rows"
        ),
    ],
)
def test_gradients_are_finite_everywhere(function):
    everywhere = np.concatenate([vectors(angle) for angle in ANGLES])
    jacobian = jax.jit(jax.vmap(jax.jacobian(function)))(jnp.asarray(everywhere))
    assert np.all(np.isfinite(jacobian)) and np.max(np.abs(jacobian)) < 100


@pytest.mark.parametrize("angle", [1e-3, 0.5, 2.0, 3.0])
def test_gradient_of_geodesic_angle_has_unit_length(angle):
    np.testing.assert_allclose(DISTANCE(jnp.asarray(vectors(angle))), vectors(1.0), atol=2e-3)


def test_degenerate_6d_has_finite_value_and_gradient():
    for x in (jnp.zeros(6), jnp.array([1.0, 0, 0, 1.0, 0, 0]), jnp.array([0.0, 0, 0, 1.0, 0, 0])):
        for layout in rot.ROT6D_LAYOUTS:
            assert np.all(np.isfinite(rot.rot6d_to_matrix(x, layout)))
            assert np.all(
                np.isfinite(
                    jax.jacobian(lambda x, layout=layout: rot.rot6d_to_matrix(x, layout))(x)
                )
            )
