import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax import blocks, lbs, rotations
from smpl_reference import FREE_BODY, random_body, reference_forward, rodrigues

TOLERANCE = 1e-5  # metres
FORWARD = jax.jit(smpl_jax.forward)
SLOPES = jax.jit(
    jax.grad(
        lambda model, betas, pose, probe: jnp.sum(
            smpl_jax.forward(model, betas, pose).vertices * probe
        ),
        (1, 2),
    )
)


@functools.cache
def bodies(kind: str):
    """(arrays, model) of the free body or of a random one with SMPL's 6890 vertices."""
    if kind == "free":
        return dict(np.load(FREE_BODY)), smpl_jax.load(FREE_BODY)
    arrays = random_body()
    return arrays, _load_arrays(arrays)


def _load_arrays(arrays, **options):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "body.npz"
        np.savez(path, **arrays)
        return smpl_jax.load(path, **options)


def random_input(seed: int, scale: float = 0.8):
    rng = np.random.default_rng(seed)
    return rng.normal(size=10), rng.normal(0, scale, (24, 3))


@pytest.mark.parametrize("kind", ["free", "random"])
@pytest.mark.parametrize("scale", [0.0, 0.3, 1.5])
def test_equals_plain_float64_smpl(kind, scale):
    arrays, model = bodies(kind)
    for seed in range(2):
        betas, pose = random_input(seed, scale)
        vertices, joints = reference_forward(arrays, betas, np.stack([rodrigues(v) for v in pose]))
        output = FORWARD(model, betas, pose)
        np.testing.assert_allclose(output.vertices, vertices, atol=TOLERANCE)
        np.testing.assert_allclose(output.joints, joints, atol=TOLERANCE)
        rest = arrays["J_regressor"] @ (arrays["v_template"] + arrays["shapedirs"] @ betas)
        np.testing.assert_allclose(output.rest_joints, rest, atol=TOLERANCE)


@pytest.mark.parametrize("kind", ["free", "random"])
def test_equals_body_models(kind, tmp_path):
    peer = pytest.importorskip("body_models.smpl.numpy")
    arrays, model = bodies(kind)
    np.savez(tmp_path / "body.npz", **arrays)
    other = peer.SMPL(model_path=tmp_path / "body.npz")
    betas, pose = (np.float32(x) for x in random_input(3))
    theirs = other.forward_vertices(
        pose[None, 1:], pelvis_rotation=pose[None, 0], shape=betas[None]
    )[0]
    np.testing.assert_allclose(
        smpl_jax.forward(model, betas, pose).vertices, theirs, atol=TOLERANCE
    )


def test_forms_of_pose_agree():
    model = bodies("free")[1]
    betas, pose = random_input(0)
    flat = FORWARD(model, betas, pose.reshape(72))
    for form in (pose, rotations.axis_angle_to_matrix(jnp.asarray(pose))):
        for a, b in zip(flat, FORWARD(model, betas, form), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


def test_leading_axes_broadcast():
    model = bodies("free")[1]
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(4, 1, 10))
    pose = rng.normal(0, 0.5, (3, 24, 3))
    translation = rng.normal(size=(2, 1, 1, 3))
    output = FORWARD(model, betas, pose, translation)
    assert output.vertices.shape == (2, 4, 3, model.num_vertices, 3)
    assert output.joints.shape == output.rest_joints.shape == (2, 4, 3, 24, 3)
    one = FORWARD(model, betas[2, 0], pose[1], translation[1, 0, 0])
    for whole, single in zip(output, one, strict=True):
        np.testing.assert_allclose(whole[1, 2, 1], single, atol=2e-6)


def test_translation_moves_all_but_the_rest_joints():
    model = bodies("free")[1]
    betas, pose = random_input(1)
    shift = np.array([1.0, 2.0, 3.0])
    before, after = (FORWARD(model, betas, pose, t) for t in (None, shift))
    for name in ("vertices", "joints"):
        moved = getattr(after, name) - getattr(before, name)
        np.testing.assert_allclose(moved, np.broadcast_to(shift, moved.shape), atol=2e-6)
    np.testing.assert_array_equal(after.rest_joints, before.rest_joints)


def test_root_turns_about_the_pelvis_not_the_origin():
    model = bodies("free")[1]
    turn = np.zeros((24, 3))
    turn[0] = [0.0, 2.0, 0.5]
    before, after = (FORWARD(model, np.zeros(10), pose) for pose in (np.zeros((24, 3)), turn))
    np.testing.assert_allclose(after.joints[0], before.joints[0], atol=1e-6)
    assert np.linalg.norm(before.joints[0]) > 0.1


def test_fewer_betas_are_padded_and_more_are_refused():
    model = bodies("free")[1]
    betas, pose = random_input(2)
    padded = FORWARD(model, np.r_[betas[:4], np.zeros(6)], pose)
    np.testing.assert_array_equal(FORWARD(model, betas[:4], pose).vertices, padded.vertices)
    with pytest.raises(ValueError, match="at most the model's 10"):
        smpl_jax.forward(model, np.zeros(11), pose)


@pytest.mark.parametrize("shape", [(23, 3), (69,), (24, 4), (22, 3, 3)])
def test_wrong_pose_shape_is_refused(shape):
    with pytest.raises(ValueError, match="expected"):
        smpl_jax.forward(bodies("free")[1], np.zeros(10), np.zeros(shape))


def test_posed_joints_equal_those_of_forward():
    model = bodies("free")[1]
    rng = np.random.default_rng(0)
    betas = rng.normal(size=(5, 10))
    rotmats = rotations.axis_angle_to_matrix(jnp.asarray(rng.normal(size=(5, 24, 3))))
    np.testing.assert_allclose(
        smpl_jax.posed_joints(model, betas, rotmats),
        smpl_jax.forward(model, betas, rotmats).joints,
        atol=1e-6,
    )


def test_subset_has_the_same_vertices_joints_and_faces():
    arrays, model = bodies("free")
    a, b, c = arrays["f"][7]
    chosen = np.array([a, 6000, b, 12, c, model.vertex_ids["nose"]])
    small = model.subset(chosen)
    betas, pose = random_input(4)
    whole, part = FORWARD(model, betas, pose), FORWARD(small, betas, pose)
    np.testing.assert_allclose(part.vertices, whole.vertices[chosen], atol=1e-6)
    np.testing.assert_allclose(part.joints, whole.joints, atol=1e-6)
    np.testing.assert_array_equal(small.faces, [[0, 2, 4]])
    assert small.vertex_ids == {"nose": 5}
    for wrong in ([0, 0], [-1], [model.num_vertices]):
        with pytest.raises(ValueError, match="distinct"):
            model.subset(wrong)


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.8, np.pi])
def test_gradients_are_finite_and_right(scale):
    """Compare with central differences of the float64 reference.

    Also at zero pose, where a naive Rodrigues formula gives NaN.
    """
    arrays, model = bodies("free")
    rng = np.random.default_rng(5)
    pose = rng.normal(size=(24, 3))
    pose *= scale / np.linalg.norm(pose, axis=-1, keepdims=True)
    betas, probe = rng.normal(size=10), rng.normal(size=(model.num_vertices, 3)) / 100

    def reference(betas, pose):
        return np.sum(
            reference_forward(arrays, betas, np.stack([rodrigues(v) for v in pose]))[0] * probe
        )

    grad_betas, grad_pose = SLOPES(model, betas, pose, probe)
    assert np.all(np.isfinite(grad_betas)) and np.all(np.isfinite(grad_pose))
    step = 1e-5
    for joint, axis in ((0, 0), (4, 2), (16, 1)):
        shift = np.zeros((24, 3))
        shift[joint, axis] = step
        slope = (reference(betas, pose + shift) - reference(betas, pose - shift)) / (2 * step)
        np.testing.assert_allclose(grad_pose[joint, axis], slope, rtol=2e-3, atol=2e-3)
    shift = np.eye(10)[3] * step
    slope = (reference(betas + shift, pose) - reference(betas - shift, pose)) / (2 * step)
    np.testing.assert_allclose(grad_betas[3], slope, rtol=2e-3, atol=2e-3)


def test_jit_vmap_and_pytree():
    model = bodies("free")[1]
    rng = np.random.default_rng(0)
    betas, pose = jnp.asarray(rng.normal(size=(3, 10))), jnp.asarray(rng.normal(size=(3, 72)))
    plain = smpl_jax.forward(model, betas, pose).vertices
    np.testing.assert_allclose(
        jax.jit(smpl_jax.forward)(model, betas, pose).vertices, plain, atol=2e-6
    )
    np.testing.assert_allclose(
        jax.vmap(smpl_jax.forward, (None, 0, 0))(model, betas, pose).vertices, plain, atol=2e-6
    )
    leaves, structure = jax.tree.flatten(model)
    assert len(leaves) == 4 + 6 * len(model.blocks) and hash(structure) == hash(
        jax.tree.structure(model)
    )
    assert jax.tree.unflatten(structure, leaves).joint_names == model.joint_names


def test_a_body_may_be_loaded_inside_jit():
    @jax.jit
    def traced(pose):
        kept.append(smpl_jax.load(FREE_BODY))
        return smpl_jax.forward(kept[0], jnp.zeros(10), pose).joints

    kept = []
    traced(jnp.zeros(72))
    assert np.all(np.isfinite(np.asarray(kept[0].template)))


def test_half_precision_input_is_computed_in_full():
    model = bodies("free")[1]
    betas, pose = (jnp.asarray(x, jnp.bfloat16) for x in random_input(6))
    half = FORWARD(model, betas, pose)
    full = FORWARD(model, betas.astype(jnp.float32), pose.astype(jnp.float32))
    assert half.vertices.dtype == half.joints.dtype == jnp.float32
    np.testing.assert_allclose(half.vertices, full.vertices, atol=1e-6)


def test_blocks_and_their_gradients_equal_a_dense_float64_program(monkeypatch):
    """Of 18 blocks in two groups; 7 bodies together, in one turn, and in two or seven.

    The reference is the formula of the paper on dense tables in float64, differentiated by JAX.
    """
    monkeypatch.setattr(blocks, "_BLOCK", 4)
    model = bodies("free")[1].subset(np.arange(0, 6899, 100))
    groups = model.blocks
    assert len(groups) == 2 and sum(len(group.places) for group in groups) == 18
    assert min(group.weight_joints.min() for group in groups) == -1
    rng = np.random.default_rng(0)
    features = rng.normal(0, 0.3, (7, 1, 217))
    motions, probe = rng.normal(size=(7, 1, 24, 3, 4)), rng.normal(size=(7, 1, 69, 3))
    model64 = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), model)
    directions, weights = np.float64(model.directions), np.float64(model.weights)

    def dense(features, motions):
        rest = model64.template.T + jnp.einsum("...k,kcv->...vc", features, directions)
        blended = jnp.einsum("...jrc,jv->...vrc", motions, weights)
        return (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3]

    def both_modes(function, dtype):
        point = jnp.asarray(features, dtype), jnp.asarray(motions, dtype)
        value, slope = jax.vjp(function, *point)
        _, forward = jax.jvp(function, point, point)
        # Without derivatives a CPU has another program.
        return function(*point), value, *slope(jnp.asarray(probe, dtype)), forward

    with jax.enable_x64(True):
        wanted = jax.jit(lambda: both_modes(dense, np.float64))()
    mesh = model.template, model.blocks
    for small, most in ((7 * 69, 1), (0, 28 * 69), (0, 4 * 69)):
        monkeypatch.setattr(lbs, "_CPU_SMALL", small)
        monkeypatch.setattr(lbs, "_CPU_VERTICES", most)
        jax.clear_caches()  # the branches are traced once
        function = functools.partial(lbs.deform, *mesh)
        found = jax.jit(lambda function=function: both_modes(function, np.float32))()
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6 * np.abs(other).max())


def test_dense_tables_are_the_inverse_of_blocks():
    arrays, model = bodies("random")
    np.testing.assert_array_equal(model.weights, np.float32(arrays["weights"].T))
    directions = np.concatenate([arrays["shapedirs"], arrays["posedirs"]], -1).transpose(2, 1, 0)
    np.testing.assert_array_equal(model.directions, np.float32(directions))
    # Those of single vertices, also inside jit.
    index = np.array([[0, 127, 128], [5, model.num_vertices - 1, 5]])
    some = jax.jit(lambda model, index: blocks.vertex_tables(model.blocks, 24, index))(model, index)
    np.testing.assert_array_equal(some[0], np.float32(arrays["shapedirs"])[index].swapaxes(-1, -2))
    np.testing.assert_array_equal(some[1], np.float32(arrays["weights"])[index])


def test_split_over_devices_by_bodies():
    """Bodies that lie on several devices stay there: the vertices need no exchange.

    So many take a CPU several turns.
    """
    model, count = bodies("free")[1], 20 * max(8, jax.device_count())
    assert lbs._turns(count, model.num_vertices) > 1
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("bodies",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("bodies"))
    rng = np.random.default_rng(0)
    betas, pose = rng.normal(size=(count, 10)), rng.normal(0, 0.5, (count, 24, 3))
    shapes = [jax.ShapeDtypeStruct(x.shape, np.float32, sharding=rows) for x in (betas, pose)]
    program = FORWARD.lower(model, *shapes).compile()
    found = program(model, *(jax.device_put(np.float32(x), rows) for x in (betas, pose)))
    assert found.vertices.sharding.is_equivalent_to(rows, 3)
    assert not any(name in program.as_text() for name in ("all-gather", "all-reduce", "all-to-all"))
    np.testing.assert_allclose(found.vertices, FORWARD(model, betas, pose).vertices, atol=2e-6)
