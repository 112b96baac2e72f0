"""The pose tokenizer: shapes of both architectures, which token moves which joints, and its spec's
way through JSON."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from smpl_jax import rotations

from genhmr_jax.core import quantizer
from genhmr_jax.core.sizes import BODY_PARTS, SKELETONS, TokenizerSpec, TransformerSpec
from genhmr_jax.core.tokenizer import ConvStack, PoseTokenizer
from genhmr_jax.systems.genhmr.spec import GenHmrSpec

SMALL = {
    "parts": TokenizerSpec(
        "parts", part_tokens=(1, 2, 1, 3, 2, 1), codebook_size=12, code_dim=3, width=8, depth=1
    ),
    "conv": TokenizerSpec("conv", num_tokens=30, codebook_size=12, code_dim=3, width=8, depth=2),
}


@pytest.fixture(scope="module", params=["parts", "conv"])
def tokenizer(request) -> PoseTokenizer:
    return PoseTokenizer(SMALL[request.param], rngs=nnx.Rngs(0))


OWNERS = [BODY_PARTS[p] for p in (0, 1, 1, 2, 3, 3, 3, 4, 4, 5)]
"""The joints of each token of SMALL["parts"]."""


def embeddings(spec: TokenizerSpec, batch=2, seed=0):
    return jnp.asarray(
        np.random.default_rng(seed).normal(size=(batch, spec.length, spec.code_dim)), jnp.float32
    )


def random_pose(batch=2, seed=0):
    return rotations.axis_angle_to_matrix(
        jnp.asarray(np.random.default_rng(seed).normal(0, 0.5, (batch, 24, 3)), jnp.float32)
    )


@pytest.mark.parametrize(("skeleton", "joints"), [("body", 24), ("hand", 16)])
def test_parts_hold_every_joint_once(skeleton, joints):
    np.testing.assert_array_equal(np.sort(np.concatenate(SKELETONS[skeleton])), np.arange(joints))
    assert TokenizerSpec(skeleton=skeleton).joints == joints


def test_lengths():
    assert TokenizerSpec().length == 30
    assert TokenizerSpec("conv").length == 96
    assert SMALL["parts"].length == 10


@pytest.mark.parametrize(
    "spec",
    [
        TokenizerSpec(),
        TokenizerSpec("conv", num_tokens=96, codebook_size=2048, code_dim=256, width=512, depth=2),
        TokenizerSpec(skeleton="hand"),
        TokenizerSpec("conv", num_tokens=64, skeleton="hand"),
    ],
)
def test_shapes_at_full_size(spec):
    """Without computing anything."""

    def through(rotmats, vectors):
        model = PoseTokenizer(spec, rngs=nnx.Rngs(0))
        ids = model.tokenize(vectors, rotmats)
        return model.encode(rotmats), ids, model.decode(vectors[ids])

    pose, vectors = (
        jax.ShapeDtypeStruct((3, spec.joints, 3, 3), jnp.float32),
        jax.ShapeDtypeStruct((spec.codebook_size, spec.code_dim), jnp.float32),
    )
    latent, ids, out = nnx.eval_shape(through, pose, vectors)
    assert latent.shape == (3, spec.length, spec.code_dim)
    assert ids.shape == (3, spec.length) and jnp.issubdtype(ids.dtype, jnp.integer)
    assert out.shape == (3, spec.joints, 3, 3) and out.dtype == jnp.float32


def test_decode_gives_rotations(tokenizer):
    out = np.asarray(tokenizer.decode(10.0 * embeddings(tokenizer.spec, 4)), np.float64)
    np.testing.assert_allclose(
        out @ np.swapaxes(out, -1, -2), np.broadcast_to(np.eye(3), out.shape), atol=1e-5
    )
    np.testing.assert_allclose(np.linalg.det(out), 1.0, atol=1e-5)


def test_decoding_many_times_is_decoding(tokenizer):
    """With the parts' networks as one, and with gradients for the embeddings."""
    z, weight = embeddings(tokenizer.spec, 3), random_pose(3, 1)

    @jax.jit
    def both(z):
        return [
            (decode(z), jax.vjp(decode, z)[1](weight)[0])
            for decode in (tokenizer.decoding(), tokenizer.decode)
        ]

    for found, wanted in zip(*both(z), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_tokenize_takes_the_nearest_code(tokenizer):
    vectors = jnp.asarray(np.random.default_rng(3).normal(size=(12, 3)), jnp.float32)
    latent = np.asarray(tokenizer.encode(random_pose()), np.float64)
    ids = tokenizer.tokenize(vectors, random_pose())
    np.testing.assert_array_equal(
        ids, ((latent[:, :, None] - np.asarray(vectors)) ** 2).sum(-1).argmin(-1)
    )


def test_a_token_of_parts_moves_its_own_joints_alone():
    spec = SMALL["parts"]
    model = PoseTokenizer(spec, rngs=nnx.Rngs(1))
    z = embeddings(spec, 1)
    changed = (
        jnp.repeat(z, spec.length, 0).at[np.arange(spec.length), np.arange(spec.length)].add(1.0)
    )
    gap = jnp.abs(model.decode(changed) - model.decode(jnp.repeat(z, spec.length, 0))).max((-1, -2))
    for token, joints in enumerate(OWNERS):
        assert set(np.nonzero(np.asarray(gap[token]) > 1e-4)[0]) == set(joints), token
        assert np.asarray(gap[token])[np.setdiff1d(np.arange(24), joints)].max() < 1e-6, token


def test_a_joint_reaches_the_tokens_of_its_own_part_alone():
    """The encoder puts the joints in the order of the parts: a wrong row would reach another part's
    tokens."""
    spec = SMALL["parts"]
    model = PoseTokenizer(spec, rngs=nnx.Rngs(1))
    pose = jnp.repeat(random_pose(1), 24, 0)
    turned = pose.at[np.arange(24), np.arange(24)].set(
        rotations.axis_angle_to_matrix(jnp.array([1.0, -0.5, 0.7]))
    )
    gap = np.asarray(jnp.abs(model.encode(turned) - model.encode(pose)).max(-1))
    for joint in range(24):
        wanted = [joint in joints for joints in OWNERS]
        np.testing.assert_array_equal(gap[joint] > 1e-5, wanted)


def test_conv_resizes_to_the_nearest_neighbour():
    """Lengths 5 -> 8 -> 3 through convolutions that pass everything on."""
    stack = ConvStack(
        1, 1, (8, 3), dataclasses.replace(SMALL["conv"], width=1, depth=0), rngs=nnx.Rngs(0)
    )
    for conv in (stack.inp, stack.resized["conv_0"], stack.resized["conv_1"], stack.out):
        conv.kernel.set_value(jnp.zeros_like(conv.kernel[...]).at[1].set(1.0))
    row = np.arange(5) + 1.0
    once = row[[0, 0, 1, 1, 2, 3, 3, 4]]  # floor(i * 5 / 8)
    found = stack(jnp.asarray(row, jnp.float32)[None, :, None])
    np.testing.assert_array_equal(found[0, :, 0], once[[0, 2, 5]])  # floor(i * 8 / 3)


def test_gradient_at_the_identity_pose_is_finite(tokenizer):
    rest = jnp.broadcast_to(jnp.eye(3), (1, 24, 3, 3))

    def error(rotmats):
        return jnp.sum((tokenizer.decode(tokenizer.encode(rotmats)) - random_pose(1)) ** 2)

    gradient = jax.grad(error)(rest)
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_quantised_gradient_passes_straight_through(tokenizer):
    vectors = jnp.asarray(np.random.default_rng(3).normal(size=(12, 3)), jnp.float32)

    def error(rotmats):
        latent = tokenizer.encode(rotmats)
        codes = vectors[quantizer.nearest(vectors, latent)]
        return jnp.sum(tokenizer.decode(quantizer.straight_through(latent, codes))[..., 0, 1])

    gradient = jax.grad(error)(random_pose())
    assert bool(jnp.isfinite(gradient).all()) and float(jnp.abs(gradient).max()) > 0


def test_bad_specs():
    with pytest.raises(ValueError, match="parts or conv"):
        TokenizerSpec("transformer")
    with pytest.raises(ValueError, match="6 numbers are needed"):
        TokenizerSpec(part_tokens=(5, 5))
    with pytest.raises(ValueError, match="has no input"):
        GenHmrSpec(num_keypoints=0)
    with pytest.raises(ValueError, match="project or simple"):
        GenHmrSpec(pyramid="graph")


@pytest.mark.parametrize(
    "spec",
    [
        GenHmrSpec(
            tokenizer=SMALL["parts"], transformer=TransformerSpec(width=32, heads=4, head_rank=4)
        ),
        GenHmrSpec(
            tokenizer=SMALL["conv"],
            num_keypoints=0,
            encoder_channels=(8,),
            pyramid="simple",
            pyramid_scales=(2.0, 0.5),
        ),
        GenHmrSpec(encoder_channels=(16, 32)),
    ],
)
def test_spec_survives_json(spec):
    found = GenHmrSpec.from_dict(json.loads(json.dumps(dataclasses.asdict(spec))))
    assert found == spec and hash(found) == hash(spec)
    assert found.transformer.levels == (2 if spec.encoder_channels else 0)
