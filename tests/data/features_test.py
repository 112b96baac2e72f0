"""The encoder "detector": the detector's maps of each person, in the axes of an upright region.

From stored sets to training and recovery.
"""

import copy
import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from flax import nnx

from genhmr_jax.core import encoders
from genhmr_jax.core.choices import CONTEXTS
from genhmr_jax.core.inputs import Inputs, conditioned
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.data import feature_set, features
from genhmr_jax.data.image_rows import ImageRows
from genhmr_jax.data.synthetic.write import read_shards, write_split
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.detector import detect
from genhmr_jax.evaluate import views
from genhmr_jax.evaluate.settings import Settings
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover import photo
from genhmr_jax.systems.genhmr import validation
from genhmr_jax.systems.genhmr.model import GenHmr
from genhmr_jax.systems.genhmr.model import tokenizer as tokenizer_of
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from genhmr_jax.systems.genhmr.task import make_task
from genhmr_jax.systems.tokenizer.task import TokenizerTask

BODY = keypoint_model(load_body("lite"))
SPEC = GenHmrSpec(
    tokenizer=TokenizerSpec(codebook_size=16, width=24, depth=1),
    transformer=TransformerSpec(width=24, layers=2, heads=2),
    num_keypoints=23,
    feedback=True,
    context_width=24,
    context_depth=1,
    encoder="detector",
    encoder_channels=(288, 288),
)


def test_an_upright_camera_shows_the_picture_rotated():
    rng = np.random.default_rng(0)
    points, size = rng.normal(size=(7, 3)) + [0.2, -0.4, 6.0], np.array([640.0, 480.0])
    focal, region = 700.0, Region(*rng.uniform(100, 400, 3), 0.7)
    square = jnp.array([region.x, region.y, region.side, region.angle])
    view = CropCamera(jnp.zeros(3), jnp.asarray(focal), jnp.asarray(size / 2), square)
    turn, rotated = view.upright()
    pixels = points[:, :2] / points[:, 2:] * focal + size / 2
    # `turn` leads from the axes of the upright camera to those of the camera.
    own = points @ np.asarray(turn, np.float64)
    upright = own[:, :2] / own[:, 2:] * focal + size / 2
    crop = np.asarray(rotated.crop, np.float64)
    inside = (upright - crop[:2]) / crop[2]  # of a square that is not turned
    np.testing.assert_allclose(region.to_image(256 * (inside + 0.5)), pixels, atol=1e-2)


@pytest.fixture(scope="module")
def network():
    system = GenHmrSystem(SPEC)
    pure = lambda module: nnx.to_pure_dict(nnx.split(module)[1])
    model = pure(GenHmr(SPEC, rngs=nnx.Rngs(0)))
    leaves, tree = jax.tree.flatten(model)
    noise = jax.random.split(jax.random.key(1), len(leaves))
    model = jax.tree.unflatten(
        tree, [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, noise, strict=True)]
    )
    vectors = jax.random.normal(jax.random.key(2), (16, SPEC.tokenizer.code_dim))
    return system, {
        "genhmr": model,
        "tokenizer": pure(PoseTokenizer(SPEC.tokenizer, rngs=nnx.Rngs(3))),
        "codebook": {"vectors": vectors},
    }


def answer(network, inputs):
    """Rotations, shape and location (of the pelvis, about which a body turns) of the bodies."""
    system, params = network
    encoded = system.encode(params, inputs)
    keys = jax.random.split(jax.random.key(0), inputs.rows)
    latents = system.sample(params, BODY, encoded, keys)
    rotmats = system.pose(params, inputs.view)(latents.embeddings)
    pelvis = smpl_jax.posed_joints(BODY, latents.betas, rotmats)[:, 0]
    return rotmats, latents.betas, pelvis + inputs.view.translation(latents.weak_camera)


def made_up(rows=3):
    """Inputs of a network, with random maps."""
    rng = np.random.default_rng(5)
    points = rng.uniform(50, 400, (rows, 23, 2))
    keypoints = jnp.asarray(np.concatenate([points, np.ones((rows, 23, 1))], -1), jnp.float32)
    view = CropCamera(
        crop=jnp.tile(jnp.array([200.0, 220.0, 300.0]), (rows, 1)),
        focal=jnp.full(rows, 700.0),
        centre=jnp.tile(jnp.array([320.0, 240.0]), (rows, 1)),
        region=jnp.tile(jnp.array([210.0, 190.0, 320.0, 0.2]), (rows, 1)),
    )
    keypoints3d = jnp.asarray(rng.normal(size=(rows, 23, 3)), jnp.float32)
    return with_maps(
        Inputs(view, keypoints, keypoints3d),
        rng.normal(size=(rows, *Detections.empty(1).features.shape[1:])),
    )


def with_maps(inputs, maps):
    return dataclasses.replace(
        inputs, maps=encoders.maps_of_features(jnp.asarray(maps, jnp.float32))
    )


def inverted(inputs):
    """The inputs with other maps."""
    return dataclasses.replace(inputs, maps=[1.0 - m for m in inputs.maps])


@pytest.mark.slow
def test_who_is_turned_about_the_optical_axis_gets_the_same_body_turned(network):
    """Camera roll is exactly undone: only the root rotation and the location change."""
    inputs, angle = made_up(), 0.9
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    view = inputs.view
    about = lambda points: (points - view.centre[:1]) @ turn[:2, :2].T + view.centre[:1]
    region = jnp.concatenate(
        [about(view.region[:, :2]), view.region[:, 2:3], view.region[:, 3:] + angle], -1
    )
    points = jnp.concatenate([about(inputs.keypoints[..., :2]), inputs.keypoints[..., 2:]], -1)
    # Another crop: it must not matter in which crop the location is expressed.
    crop = jnp.tile(jnp.array([300.0, 100.0, 250.0]), (3, 1))
    other = dataclasses.replace(
        inputs,
        view=dataclasses.replace(view, region=region, crop=crop),
        keypoints=points,
        keypoints3d=inputs.keypoints3d @ turn.T,
    )
    rotmats, betas, pelvis = answer(network, inputs)
    rotmats2, betas2, pelvis2 = answer(network, other)
    np.testing.assert_allclose(rotmats2[:, 0], turn @ rotmats[:, 0], atol=2e-4)
    np.testing.assert_allclose(rotmats2[:, 1:], rotmats[:, 1:], atol=2e-4)
    np.testing.assert_allclose(betas2, betas, atol=2e-4)
    np.testing.assert_allclose(pelvis2, pelvis @ turn.T, rtol=1e-3, atol=1e-3)


def test_the_maps_are_used(network):
    inputs = made_up()
    plain, other = answer(network, inputs)[0], answer(network, inverted(inputs))[0]
    assert np.abs(plain - other).max() > 1e-3


def test_conditioning_on_the_image_alone_or_the_keypoints_alone(network):
    inputs = made_up()
    other = dataclasses.replace(
        inputs, keypoints=inputs.keypoints + 9.0, keypoints3d=-inputs.keypoints3d
    )
    bodies = [
        answer(network, conditioned(v, context))[0]
        for context in ("image", "all")
        for v in (inputs, other)
    ]
    np.testing.assert_array_equal(bodies[0], bodies[1])
    assert np.abs(bodies[2] - bodies[3]).max() > 1e-3
    both = (inputs, inverted(inputs))
    np.testing.assert_array_equal(*(answer(network, conditioned(v, "keypoints"))[0] for v in both))
    assert network[0].contexts == CONTEXTS
    with pytest.raises(ValueError, match="unknown context 'picture'"):
        conditioned(inputs, "picture")


def test_a_context_that_the_model_lacks_is_refused(network):
    lacks = GenHmrSystem(dataclasses.replace(SPEC, encoder_channels=()))
    body = photo.load_body("lite")
    with pytest.raises(
        InputError, match="--context image: is not supported by this model; choose all or keypoints"
    ):
        photo.Recoverer(lacks, {}, body).solve(
            None, np.arange(1), photo.RecoverOptions(context="image")
        )
    with pytest.raises(ValueError, match="context is 'depth'"):
        photo.RecoverOptions(context="depth")


def test_two_maps_of_known_channels():
    with pytest.raises(ValueError, match=r"'detector' has maps of \(288, 288\) channels"):
        dataclasses.replace(SPEC, encoder_channels=(80, 136, 288))


@pytest.fixture(scope="module")
def images(tmp_path_factory, corpus_file):
    """Rendered images and the detector's maps of them, both splits."""
    root = tmp_path_factory.mktemp("images")
    for split in ("train", "val"):
        write_split(root / "images", split, 4, str(corpus_file), workers=1)
        features.compute(root / "images", root / "maps", split, "detector")
    return root


@pytest.fixture(scope="module")
def task(images, get_config, corpus_file, tmp_path_factory):
    """Training of a small image-only model by configs/genhmr/image_and_keypoints.py."""
    folder = tmp_path_factory.mktemp("tokenizer")
    first = get_config("tokenizer/tiny")
    first.data.poses = str(corpus_file)
    tokenizer = TokenizerTask(first)
    tokenizer.export(folder, *tokenizer.init(jax.random.key(0)), {})
    config = get_config("genhmr/image_and_keypoints")
    config.batch_size, config.model.num_keypoints = 0, 0
    config.model.update({"context_width": 24, "context_depth": 1, "score_width": 8})
    config.model.transformer.update({"width": 24, "layers": 1, "heads": 2})
    config.data.images, config.data.poses, config.tokenizer, config.init = (
        str(images / "maps"),
        str(corpus_file),
        str(folder),
        "",
    )
    config.image_batch_size = 4
    return make_task(config)


def test_sets_without_an_array_are_refused(images, task, tmp_path):
    """Neither a whole set nor a part of one that lacks the maps of the mirror image is used."""
    folder = tmp_path / "older"
    shutil.copytree(images / "maps", folder)
    part = min((folder / "train" / "parts").glob("*.npz"))
    with np.load(part) as data:
        kept = {name: data[name] for name in data.files if name != "evidence_mirrored"}
    np.savez(part.with_name("older.npz"), **kept)
    with pytest.raises(InputError, match="older.npz: holds other arrays than the parts before it"):
        feature_set.join_parts([part, part.with_name("older.npz")], folder / "train", "detector")
    feature_set.join_parts([part.with_name("older.npz")], folder / "train", "detector")
    config = copy.deepcopy(task.config)
    config.data.images = str(folder)
    with pytest.raises(InputError, match="lacks evidence_mirrored: another version wrote it"):
        ImageRows(config, "detector").source()


def test_tokens_and_labels_agree_in_training(task):
    """Tokens are of the upright pose; decoded, they are the labelled pose in the axes of the photo,
    as near as the tokenizer is."""
    rows = task.sources()["images"].load(np.arange(4))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), {"images": rows}) == jax.tree.map(
        lambda x: (x.shape, x.dtype), task.batch_shapes()
    )
    sample = jax.jit(task.prepare)(task.frozen, {"images": rows})["images"]
    inputs = sample.inputs
    turn = inputs.view.upright()[0]
    assert np.abs(turn - np.eye(3)).max() > 0.01
    tokenizer = tokenizer_of(task.system.spec, task.frozen)
    vectors = task.frozen["codebook"]["vectors"]
    rotmats, tokens = sample.rows.rotmats, sample.targets.masked.tokens
    upright = rotmats.at[:, 0].set(jnp.swapaxes(turn, 1, 2) @ rotmats[:, 0])
    np.testing.assert_array_equal(tokens, tokenizer.tokenize(vectors, upright))
    decoded = task.system.pose(task.frozen, inputs.view)(vectors[tokens])
    plain = tokenizer.decoding()(vectors[tokens])
    np.testing.assert_allclose(decoded[:, 0], turn @ plain[:, 0], atol=1e-5)
    np.testing.assert_array_equal(decoded[:, 1:], plain[:, 1:])


@pytest.mark.slow  # three programs to compile
def test_training_measures_it_and_recover_takes_it(task, images, tmp_path):
    params, extra = task.init(jax.random.key(1))
    rows = next(task.images.validation(lambda batch: batch))
    measured = validation._measure(
        task.system, params, task.frozen, rows, jnp.asarray(5), context="all", rule="final"
    )
    task.export(tmp_path, params, extra, {})
    report = views.evaluate(str(tmp_path), Settings(refine_steps=0), images=str(images / "maps"))
    expected = float(measured["pa_mpjpe"] / measured["rows"])
    assert report["contexts"]["image"]["sampled"]["pa_mpjpe_mm"] == pytest.approx(
        expected, rel=2e-2
    )

    model, image = photo.load(tmp_path), next(read_shards(images / "images" / "val")).image
    seen = detect(image)
    assert (
        seen.features.shape == (len(seen), 2, 8, 8, 288)
        and np.abs(seen.features).max((1, 2, 3, 4)).min() > 0
    )
    # One iteration: those of random weights only amplify differences.
    options = photo.RecoverOptions(refine_steps=0, iterations=1)
    people = model.recover(image, options=options)
    given = model.recover(
        image,
        boxes=seen.boxes,
        keypoints=seen.keypoints,
        options=options,
    )
    assert len(people) == len(given) == len(seen) and np.isfinite(people.vertices).all()
    # With the user's own keypoints the detector runs in their box: almost the same maps.
    assert (
        np.median(np.abs(given.body_pose - people.body_pose)) < 0.05
        and np.abs(given.vertices - people.vertices).max() > 0
    )
    points = people.projected_keypoints
    assert (np.abs(points.mean(1) - seen.keypoints[..., :2].mean(1)) < 200).all()  # the crop


@pytest.mark.slow  # half a minute of compiling
def test_simulated_views_are_learned_from_beside_maps(images, task, get_config, corpus_file):
    """Views have no maps, and their keypoints are in the axes of the photo."""
    config = get_config("genhmr/image_and_keypoints")
    config.model.update({"context_width": 16, "context_depth": 1, "score_width": 8})
    config.model.transformer = task.config.model.transformer
    config.data, config.tokenizer, config.init = task.config.data, task.config.tokenizer, ""
    config.batch_size, config.image_batch_size = 3, 4
    both = make_task(config)
    batch = {name: source.load(np.arange(source.size)) for name, source in both.sources().items()}
    sample = jax.jit(both.prepare)(both.frozen, batch)
    turn = sample["views"].inputs.view.upright()[0]
    np.testing.assert_array_equal(turn, np.tile(np.eye(3), (3, 1, 1)))
    params, extra = both.init(jax.random.key(0))
    loss = jax.value_and_grad(lambda p: both.loss(p, extra, both.frozen, sample), has_aux=True)
    (total, found), grads = jax.jit(loss)(params)
    assert np.isfinite(total) and {"token", "image_token", "rotation", "image_rotation"} <= set(
        found["terms"]
    )
    for level in grads["pyramid"]["levels"].values():  # both maps are learned from
        assert np.abs(level["proj"]["kernel"]).max() > 0
