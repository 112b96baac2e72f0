"""MQ-HMR: its head against NumPy, what its refinement moves, its training and its answer."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.cli.main import SAMPLE_PHOTO
from genhmr_jax.core import encoders
from genhmr_jax.core.system import StoredSystem
from genhmr_jax.data.image_rows import with_maps
from genhmr_jax.io import images
from genhmr_jax.io.model_folder import load_meta
from genhmr_jax.recover import photo
from genhmr_jax.systems import registry
from genhmr_jax.systems.regressors.heads import Body
from genhmr_jax.systems.regressors.model import RegressorSpec
from genhmr_jax.systems.regressors.multi_query import MultiQueryHead, MultiQuerySpec
from genhmr_jax.systems.regressors.query_decoder import QueryDecoderSpec
from genhmr_jax.train import loop
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train import program as programs
from support import stored_rows

CHANNELS = (6, 8)
SIZES = {"width": 16, "layers": 2, "heads": 2, "mlp_ratio": 2, "points": 2}


def head_of(queries: int) -> MultiQueryHead:
    """A head with random numbers everywhere, also where training starts from zero."""
    head = MultiQueryHead(MultiQuerySpec(queries, **SIZES), CHANNELS, rngs=nnx.Rngs(0))
    graph, state = nnx.split(head)
    rng = np.random.default_rng(1)
    draw = lambda x: x + jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype)
    return nnx.merge(graph, jax.tree.map(draw, state))


def maps_of(rows: int) -> list:
    rng = np.random.default_rng(2)
    return [
        jnp.asarray(rng.normal(size=(rows, size, size, c)), jnp.float32)
        for size, c in zip((8, 4), CHANNELS, strict=True)
    ]


def numpy_rotations(rot6d: np.ndarray) -> np.ndarray:
    """Gram-Schmidt of (..., 6), the two vectors as rows (Zhou et al. 2019, eq. 15)."""
    a, b = rot6d[..., :3], rot6d[..., 3:]
    first = a / np.linalg.norm(a, axis=-1, keepdims=True)
    b = b - (first * b).sum(-1, keepdims=True) * first
    second = b / np.linalg.norm(b, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], -2)


@pytest.mark.parametrize("queries", [24, 7])
def test_the_head_in_float64(queries):
    """Rotations are linear in the queries, then Gram-Schmidt; the basis of the coordinates is no
    part of the answer."""
    head = head_of(queries)
    given, betas, camera = jax.jit(head.decode)(maps_of(3))
    found = jax.jit(lambda: Body(head.rotations(head.coordinates(given)), betas, camera))()
    whole = jax.jit(head)(maps_of(3))
    np.testing.assert_allclose(whole.rotmats, found.rotmats, atol=1e-5)
    float64 = lambda x: np.asarray(x[...] if isinstance(x, nnx.Param) else x, np.float64)
    x = float64(given)
    if queries != 24:
        x = x.reshape(3, -1)
    rot6d = (x @ float64(head.pose.kernel) + float64(head.pose.bias)).reshape(3, 24, 6)
    wanted = numpy_rotations(rot6d + float64(head.mean.pose).reshape(24, 6))
    # Two of its rows may be nearly parallel, so that the rotation has fewer digits.
    np.testing.assert_allclose(found.rotmats, wanted, atol=2e-4)
    np.testing.assert_allclose(whole.betas, betas, atol=1e-6)
    np.testing.assert_allclose(whole.weak_camera, camera, atol=1e-6)


def test_shape_and_camera_are_those_of_the_coarsest_map():
    head = head_of(24)
    level = jax.jit(head.pyramid)(maps_of(3))[-1]
    mean = np.asarray(level, np.float64).mean((1, 2))
    of = lambda layer, x: x @ np.asarray(layer.kernel[...]) + np.asarray(layer.bias[...])
    hidden = np.asarray(jax.nn.gelu(jnp.asarray(of(head.shape_up, mean))))
    _, betas, camera = jax.jit(head.decode)(maps_of(3))
    wanted = of(head.betas, hidden) + np.asarray(head.mean.betas[...])
    np.testing.assert_allclose(betas, wanted, atol=1e-5)
    wanted = of(head.camera, hidden) + np.asarray(head.mean.camera[...])
    np.testing.assert_allclose(camera, wanted, atol=1e-5)


@pytest.mark.parametrize("queries", [24, 7])
def test_a_step_of_the_coordinates_is_one_of_the_queries(queries):
    """A gradient step of the queries themselves, with a penalty of their distance from the start,
    gives the same pose as that of the coordinates."""
    head = head_of(queries)
    start, _, _ = jax.jit(head.decode)(maps_of(2))
    wanted = head_of(24).rotations(jnp.ones((2, 24, 6)))
    rate, prior = 0.05, 0.3

    @functools.partial(jax.jit, static_argnums=1)
    def descended(x, pose):
        first = x

        def loss(x):
            return jnp.sum((pose(x) - wanted) ** 2) + prior * jnp.sum((x - first) ** 2)

        for _ in range(4):
            x = x - rate * jax.grad(loss)(x)
        return pose(x)

    of_queries = descended(start, lambda q: head.rotations(head.coordinates(q)))
    of_coordinates = descended(head.coordinates(start), head.rotations)
    np.testing.assert_allclose(of_queries, of_coordinates, atol=2e-4)
    moved = np.abs(of_coordinates - jax.jit(head)(maps_of(2)).rotmats).max()
    assert moved > 0.05


def test_every_query_and_every_map_counts():
    """The gradient of one joint reaches all queries (self-attention) and both maps."""
    head = head_of(24)
    graph, state = nnx.split(head)
    wrist = lambda state, maps: jnp.sum(nnx.merge(graph, state)(maps).rotmats[:, 20] ** 3)
    of_state, of_maps = jax.jit(jax.grad(wrist, (0, 1)))(state, maps_of(2))
    assert (np.abs(of_state["queries"][...]).max(-1) > 0).all()
    assert all(np.abs(m).max() > 0 for m in of_maps)


def test_specs_that_do_not_fit():
    with pytest.raises(ValueError, match="kind hmr2, tokenhmr, mqhmr, not 'hmr3'"):
        RegressorSpec("hmr3")
    with pytest.raises(ValueError, match="the decoder of mqhmr is a MultiQuerySpec"):
        RegressorSpec("mqhmr", "vit_s", decoder=QueryDecoderSpec())
    with pytest.raises(ValueError, match="unknown image encoder 'eyes'"):
        RegressorSpec("mqhmr", "eyes")
    with pytest.raises(ValueError, match="queries is 0: at least 1"):
        MultiQuerySpec(0)
    spec = RegressorSpec("mqhmr", "blazepose_full")
    assert spec.vit is None and spec.depth == 0 and not spec.upright
    assert RegressorSpec("mqhmr", "detector").upright
    again = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert RegressorSpec.from_dict(again) == spec


@pytest.mark.slow
def test_the_recipe_builds(get_config):
    """The step at the scale of HMR2.0 can be traced; shapes only."""
    config = get_config("regressors/mqhmr")
    config.data.images = "none"
    task = registry.abstract_task(config)
    program = programs.build(task, config, meshes.make_mesh(config.mesh))
    state, metrics = jax.eval_shape(program.step, program.state, program.batch, program.frozen)
    assert set(metrics["terms"]) == {"joints3d", "joints2d", "orient", "pose", "betas"}
    count = sum(x.size for x in jax.tree.leaves(state["params"]))
    assert 720e6 < count < 760e6 and get_config("regressors/mqhmr:b").model.encoder == "vit_b"


@pytest.fixture(scope="module")
def config(get_config, tmp_path_factory):
    """configs/regressors/tiny_mqhmr.py on made-up maps of the detector."""
    config = get_config("regressors/tiny_mqhmr")
    config.model.encoder = "detector"
    config.data.images = str(stored_rows.write(tmp_path_factory.mktemp("rows"), encoder="detector"))
    config.data.mixture, config.data.people_val = "hmr2", ""
    return config


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """The workdir of a tiny training of four steps."""
    config, workdir = config.copy_and_resolve_references(), tmp_path_factory.mktemp("mqhmr")
    config.steps, config.evaluate_every, config.checkpoint_every, config.log_every = 4, 4, 2, 1
    loop.train(registry.make_task(config), config, workdir)
    return workdir


def test_a_training_leaves_a_model(trained, config):
    """`recover` loads what was trained, with the answers that the training measured."""
    meta = load_meta(trained / "model")
    assert meta["kind"] == "mqhmr" and 20 < meta["measured"]["val_pa_mpjpe_mm"] < 1000
    recoverer, task = photo.load(trained / "model", model="mqhmr"), registry.make_task(config)
    rows = jax.tree.map(jnp.asarray, stored_rows.of_detector(2, 0))
    system, inputs = recoverer.system, rows.inputs()
    assert isinstance(system, StoredSystem) and system.encoder == "detector"
    encoded = jax.jit(system.encode)(recoverer.params, inputs)
    sample = task.prepare(task.frozen, {"images": rows})
    given = recoverer.params["genhmr"], task.frozen, None
    body = jax.jit(lambda *x, maps: task.bodies(*x, maps=maps))(*given, maps=sample.maps)
    np.testing.assert_allclose(encoded.weak_camera, body.weak_camera, atol=1e-5)
    turn = inputs.view.upright()[0]
    rotmats = system.pose(recoverer.params, inputs.view)(encoded.embeddings)
    np.testing.assert_allclose(rotmats[:, 0], turn @ body.rotmats[:, 0], atol=1e-4)
    np.testing.assert_allclose(rotmats[:, 1:], body.rotmats[:, 1:], atol=1e-4)


@pytest.mark.slow
def test_it_recovers_and_refines(trained):
    recoverer = photo.load(trained / "model", model="mqhmr")
    image = images.read_image(SAMPLE_PHOTO)
    plain = recoverer.recover(image, options=photo.RecoverOptions(refine_steps=0))
    refined = recoverer.recover(image)
    assert len(refined) == 1 and refined.refine_loss.shape[1] == 11
    assert refined.reprojection_error()[0] < 0.8 * plain.reprojection_error()[0]


def test_maps_of_a_frozen_encoder_in_place_of_pixels(config):
    """Photos get the encoder's maps; the loss has a gradient for the head, and no other."""
    config = config.copy_and_resolve_references()
    config.model.encoder, config.image_batch_size = "blazepose_full", 2
    task = registry.abstract_task(config)
    shapes = encoders.find("blazepose_full").stored_shapes(2)["maps"]
    rng, rows = np.random.default_rng(0), stored_rows.rows(2, 0)
    maps = [jnp.asarray(rng.normal(size=s.shape), s.dtype) for s in shapes]
    stored = dataclasses.replace(rows, images=None, maps=maps, number=np.arange(2, dtype="uint32"))
    assert with_maps(stored, "blazepose_full") is stored and with_maps(rows, "vit_s") is rows
    found = jax.eval_shape(lambda r: with_maps(r, "blazepose_full"), rows)
    assert [(m.shape, m.dtype) for m in found.maps] == [(s.shape, s.dtype) for s in shapes]
    params, _ = jax.jit(task.init)(jax.random.key(0))
    assert set(params) == {"head"}

    def loss(params):
        sample = task.prepare(task.frozen, {"images": stored})
        return task.loss(params, {}, task.frozen, sample)[0]

    gradient = jax.jit(jax.grad(loss))(params)["head"]
    assert np.abs(gradient["pose"]["kernel"]).max() > 0
    assert not any(np.abs(g).max() > 0 for g in jax.tree.leaves(gradient["mean"]))
    answer = jax.jit(lambda p: task.bodies(p, task.frozen, None, maps=maps))(params)
    assert isinstance(answer, Body)
    mean = task._mean_pose().reshape(24, 6)
    wanted = numpy_rotations(np.asarray(mean, np.float64))
    assert np.abs(answer.rotmats - wanted).max() < 0.2, "at first nearly the mean body"


def test_maps_in_the_axes_of_a_region(config, monkeypatch):
    """Labels are turned to the axes of the detector's maps, and answers back to the photo's."""
    config = config.copy_and_resolve_references()
    config.model.encoder, config.image_batch_size, config.data.images = "detector", 3, "none"
    task = registry.abstract_task(config)
    rows, body = jax.tree.map(jnp.asarray, stored_rows.of_detector(3, 0)), task.frozen["body"]
    assert np.abs(rows.evidence.region[:, 3]).min() > 0.1  # all are turned
    system, params = task.system, {"genhmr": task.init(jax.random.key(0))[0]}
    # The network's answers are the labels of the training.
    sample = task.prepare(task.frozen, {"images": rows})
    assert np.abs(sample.rotmats[:, 0] - rows.rotmats[:, 0]).max() > 0.1
    inputs = rows.inputs()
    own = rows.turned(*inputs.view.upright())
    encoded = dataclasses.replace(
        jax.jit(system.encode)(params, inputs), betas=rows.betas, weak_camera=own.weak_camera
    )
    monkeypatch.setattr(MultiQueryHead, "rotations", lambda head, x: sample.rotmats)
    latents = system.sample(params, body, encoded, jax.random.split(jax.random.key(0), 3))
    np.testing.assert_allclose(latents.weak_camera, rows.weak_camera, atol=1e-4)
    rotmats = system.pose(params, inputs.view)(latents.embeddings)
    np.testing.assert_allclose(rotmats, rows.rotmats, atol=1e-5)
    # 2D labels are where the body of these labels is in the region.
    points = rows.view.project(rows.joints + rows.view.translation(rows.weak_camera)[:, None])
    own_points = own.view.project(own.joints + own.view.translation(own.weak_camera)[:, None])
    turn = inputs.view.upright()[0][:, :2, :2]
    middle = rows.view.centre[:, None]
    np.testing.assert_allclose((points - middle) @ turn + middle, own_points, atol=1e-2)
