"""A model of hands with a ViT: the pixels that it gets, its start, a training, and a photo."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.core.inputs import upright
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.hands import Hands
from genhmr_jax.geometry.hand import mirror_pixels, mirror_points
from genhmr_jax.geometry.hand_crop import MARGIN
from genhmr_jax.geometry.hand_pixels import EXTENT
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.model_folder import load_meta, save_params
from genhmr_jax.nets.vit import Vit
from genhmr_jax.recover.hands import load_hands
from genhmr_jax.recover.photo import RecoverOptions
from genhmr_jax.systems import registry
from genhmr_jax.systems.maskhand.model import vit_of
from genhmr_jax.systems.maskhand.spec import MaskHandSpec
from genhmr_jax.systems.maskhand.system import MaskHandSystem
from genhmr_jax.train import loop
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.aot import infer

WIDTH, HEIGHT = 640, 480
CAMERA = PhotoCamera(900.0, (WIDTH / 2, HEIGHT / 2))


def made_up_hands(count=2, seed=0):
    """Right hands whose keypoints are well inside a photo of WIDTH x HEIGHT px."""
    rng = np.random.default_rng(seed)
    keypoints = np.ones((count, 21, 3), np.float32)
    middle = rng.uniform((250, 200), (390, 280), (count, 1, 2))
    keypoints[..., :2] = middle + rng.uniform(-60, 60, (count, 21, 2))
    keypoints3d = rng.normal(0, 0.05, (count, 21, 3)).astype(np.float32)
    right = np.ones(count, np.float32)
    parts = {"keypoints": keypoints, "keypoints3d": keypoints3d, "right": right}
    return dataclasses.replace(Hands.empty(count), **parts)


def mirrored(hands):
    """The left hands of the mirror image of the photo."""
    return dataclasses.replace(
        hands,
        keypoints=mirror_pixels(hands.keypoints, WIDTH / 2),
        keypoints3d=mirror_points(hands.keypoints3d),
        right=np.zeros(len(hands), np.float32),
    )


def smooth_photo(seed=0):
    """A photo without sharp edges."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (HEIGHT // 40, WIDTH // 40, 3))
    return np.kron(coarse, np.ones((40, 40, 1))).astype(np.uint8)


def with_vit(**changes):
    settings = {"encoder": "vit_s", "encoder_depth": 1, "pyramid_scales": (2.0, 1.0)}
    return MaskHandSpec(**settings | changes)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_keypoint_is_where_the_network_is_told(side):
    """A bright spot at a keypoint of the photo: in the pixels it is at the network's keypoint."""
    hands = made_up_hands()
    if side == "left":
        hands = mirrored(hands)
    system = MaskHandSystem(with_vit())
    for keypoint in (0, 8, 20):
        photo = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        x, y = np.round(hands.keypoints[0, keypoint, :2]).astype(int)
        photo[y - 3 : y + 3, x - 3 : x + 3] = 255  # its centre is (x, y)
        hands.keypoints[0, keypoint, :2] = x, y
        inputs = system.prepare(photo, hands, CAMERA, 3)
        _, own = upright(inputs)
        told = np.asarray(own.view.to_crop(own.keypoints[..., :2]))[0, keypoint]
        weight = inputs.images[0].sum(-1)
        rows, columns = np.indices(weight.shape) + 0.5
        found = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        np.testing.assert_allclose(found / 128 - 1, told * MARGIN / EXTENT, atol=0.01)
        assert inputs.images.shape == (3, 256, 256, 3) and not inputs.images[2].any()


def test_left_hands_get_the_pixels_of_right_ones():
    """The mirror image of a photo and of its hands: the same inputs."""
    system, hands, photo = MaskHandSystem(with_vit()), made_up_hands(), smooth_photo()
    right = system.prepare(photo, hands, CAMERA, 2)
    left = system.prepare(photo[:, ::-1], mirrored(hands), CAMERA, 2)
    np.testing.assert_allclose(left.images, right.images, atol=2 / 255)
    np.testing.assert_allclose(left.view.region, right.view.region, rtol=1e-5, atol=1e-4)
    assert right.images.std() > 0.1


def test_a_wrong_encoder():
    with pytest.raises(ValueError, match="is of people: hand_landmarks is of hands"):
        MaskHandSpec(encoder="blazepose_full")
    with pytest.raises(ValueError, match="unknown image encoder 'resnet'"):
        MaskHandSpec(encoder="resnet")


def test_the_inference_step_by_shapes(get_config):
    """As `genhmr aot --what=infer` makes it; a tokenizer of bodies is refused."""
    config = get_config("maskhand/tiny_vit")
    task = registry.abstract_task(config, get_config("hand_tokenizer/tiny"))
    made = infer.build(task, config, meshes.make_mesh(config.mesh, jax.devices()[:1]), 4, "hands")
    found = jax.eval_shape(made.step, *made.shapes)
    assert found.global_orient.shape == (4, 3) and found.body_pose.shape == (4, 45)
    assert made.shapes[3].images.shape == (4, 256, 256, 3)
    assert found.tokens.shape == (4, task.spec.tokenizer.length)
    with pytest.raises(InputError, match="--first-stage: the tokenizer is of a body, not of a"):
        registry.abstract_task(config, get_config("tokenizer/tiny"))


@pytest.fixture(scope="module")
def trained(maskhand_vit_config, tmp_path_factory):
    """The config, and the workdir of a training of four steps with all that a ViT's has."""
    config = maskhand_vit_config.copy_and_resolve_references()
    config.steps, config.evaluate_every, config.checkpoint_every, config.log_every = 4, 4, 4, 1
    config.drop_path, config.remat, config.optim.warmup = 0.5, "products", 1
    folder = tmp_path_factory.mktemp("maskhand_vit")
    loop.train(registry.make_task(config), config, folder)
    return config, folder


@pytest.mark.slow
def test_it_learns_and_recovers_hands_of_a_photo(trained):
    """Export, load, and hands of a photo: finite; left is right in the mirror; pixels count."""
    _, folder = trained
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 4 and np.isfinite(losses).all() and min(losses[1:]) < losses[0]
    recoverer = load_hands(folder / "model")
    assert recoverer.system.spec.trains_encoder
    photo, hands, options = smooth_photo(), made_up_hands(), RecoverOptions(refine_steps=2)

    def recovered(photo, hands):
        return recoverer.recover_prepared(recoverer.prepare(photo, hands, CAMERA), options)

    right, left = recovered(photo, hands), recovered(photo[:, ::-1], mirrored(hands))
    assert np.isfinite(right.vertices).all() and not left.right.any()
    np.testing.assert_allclose(left.vertices, mirror_points(right.vertices), atol=1e-3)
    other = recovered(smooth_photo(1), hands)
    assert np.abs(other.betas - right.betas).max() > 10 * np.abs(left.betas - right.betas).max()


@pytest.mark.slow
def test_it_starts_from_a_backbone(trained, tmp_path):
    config, folder = trained
    config = config.copy_and_resolve_references()
    task = registry.make_task(config)
    vit = nnx.to_pure_dict(nnx.split(Vit(vit_of(task.spec), rngs=nnx.Rngs(7)))[1])
    save_params(tmp_path / "vit", {"genhmr": {"encoder": vit}}, {"kind": "vit", "terms": "ask"})
    before = jax.tree.map(jnp.asarray, task.init(jax.random.key(0))[0])
    config.init = f"{folder / 'model'},{tmp_path / 'vit'}"
    task = registry.make_task(config)
    after = task.warm_start(before)
    jax.tree.map(np.testing.assert_array_equal, after["encoder"], vit)
    task.export(tmp_path / "model", after, {}, {})
    assert load_meta(tmp_path / "model")["terms"] == "ask"
    assert np.abs(after["head"]["betas"]["kernel"] - before["head"]["betas"]["kernel"]).max() > 0
    config.model.encoder, config.init = "", str(tmp_path / "vit")
    with pytest.raises(InputError, match="is a 'vit' model, but this model has no ViT"):
        registry.make_task(config).warm_start(before)


@pytest.mark.slow
def test_rows_with_pixels_are_needed(trained):
    config, _ = trained
    config = config.copy_and_resolve_references()
    config.model.encoder = "hand_landmarks"
    with pytest.raises(InputError, match="holds the output of hand_pixels, not of hand_landmarks"):
        registry.make_task(config).sources()
