"""Confidence of joints against a plain form: draws one by one, SciPy's Procrustes rotation and
Maxwell's distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from flax import nnx
from scipy.spatial.transform import Rotation
from scipy.stats import maxwell

from genhmr_jax.core import sampling
from genhmr_jax.core.confidence import DRAWS, NEAR
from genhmr_jax.core.feedback import DetectedKeypoints
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.systems.genhmr.model import Encoded, GenHmr
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.systems.genhmr.system import GenHmrSystem

SPEC = GenHmrSpec(
    TokenizerSpec(
        "parts", part_tokens=(1, 2, 1, 1, 1, 1), codebook_size=12, code_dim=3, width=8, depth=1
    ),
    TransformerSpec(width=12, layers=1, heads=2, geometric=False),
    context_tokens=2,
    context_width=8,
    context_depth=1,
)


@pytest.fixture(scope="module")
def system():
    return GenHmrSystem(SPEC)


@pytest.fixture(scope="module")
def params():
    pure = lambda module: nnx.to_pure_dict(nnx.split(module)[1])
    model, tokenizer = (
        pure(GenHmr(SPEC, rngs=nnx.Rngs(1))),
        pure(PoseTokenizer(SPEC.tokenizer, rngs=nnx.Rngs(2))),
    )
    return {
        "genhmr": model,
        "tokenizer": tokenizer,
        "codebook": {"vectors": jax.random.normal(jax.random.key(3), (12, 3))},
    }


@pytest.fixture(scope="module")
def body():
    return keypoint_model(load_body("lite"))


def inputs(system, params, rows=3):
    key = jax.random.key(4)
    view = CropCamera(jnp.ones((rows, 3)), jnp.ones(rows), jnp.ones((rows, 2)))
    encoded = Encoded(
        detected=DetectedKeypoints(view, jnp.zeros((rows, 23, 3)), jnp.zeros((rows, 23, 3))),
        turn=None,
        photo=view,
        image_values=None,
        cells=None,
        image_weight=None,
        context=jax.random.normal(key, (rows, 2, 12)),
        betas=jnp.zeros((rows, 10)),
        weak_camera=jnp.ones((rows, 3)),
    )
    rotmats = system.decoding(params)(jax.random.normal(key, (rows, SPEC.tokenizer.length, 3)))
    return encoded, rotmats, jax.random.split(jax.random.key(5), rows)


def sampled(system, params, body, encoded, keys):
    return system.sample(params, body, encoded, keys, iterations=2)


@pytest.mark.slow
def test_it_is_the_share_of_a_gaussian_around_the_draws(system, params, body):
    encoded, rotmats, keys = inputs(system, params)
    latents = sampled(system, params, body, encoded, keys)
    found = system.confidence(params, latents, body, rotmats, keys)
    # The logits of the first of two steps are those of the network with all tokens masked.
    logits = system.logits(params, jnp.full((3, SPEC.tokenizer.length), 12), encoded)
    np.testing.assert_allclose(latents.logits, logits, atol=1e-5)
    answer = np.asarray(smpl_jax.forward(body, encoded.betas, rotmats).joints, np.float64)
    squares = np.zeros((3, 24))
    for draw in range(DRAWS):
        tokens = jnp.argmax(logits + sampling.gumbel(keys, draw, logits.shape[1:]), -1)
        drawn = system.decoding(params)(params["codebook"]["vectors"][tokens])
        joints = np.asarray(smpl_jax.forward(body, encoded.betas, drawn).joints, np.float64)
        for row in range(3):
            a, b = joints[row] - joints[row].mean(0), answer[row] - answer[row].mean(0)
            turned = Rotation.align_vectors(b, a)[0].apply(a)
            scale = (turned * b).sum() / (a**2).sum()
            squares[row] += ((scale * turned - b) ** 2).sum(-1)
    wanted = maxwell.cdf(NEAR, scale=np.sqrt(squares / (3 * DRAWS)))
    assert 0.05 < np.ptp(wanted)
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_a_network_that_is_sure_is_confident_of_its_own_answer_alone(system, params, body):
    encoded, _, keys = inputs(system, params)
    sure = params | {
        "genhmr": params["genhmr"]
        | {"transformer": params["genhmr"]["transformer"] | {"prior": _prior(7)}}
    }
    tokens = jnp.full((3, SPEC.tokenizer.length), 7)
    answer = system.decoding(params)(params["codebook"]["vectors"][tokens])
    latents = sampled(system, sure, body, encoded, keys)
    assert system.confidence(sure, latents, body, answer, keys).min() > 0.999
    other = system.decoding(params)(5 * params["codebook"]["vectors"][tokens - 4])
    assert system.confidence(sure, latents, body, other, keys).min() < 0.5


def test_a_row_does_not_depend_on_the_others(system, params, body):
    encoded, rotmats, keys = inputs(system, params)
    latents = sampled(system, params, body, encoded, keys)
    together = system.confidence(params, latents, body, rotmats, keys)
    encoded, latents = jax.tree.map(lambda x: x[1:2], (encoded, latents))
    alone = system.confidence(params, latents, body, rotmats[1:2], keys[1:2])
    np.testing.assert_allclose(alone[0], together[1], atol=1e-5)


def _prior(code):
    return jnp.zeros((SPEC.tokenizer.length, 12)).at[:, code].set(50.0)
