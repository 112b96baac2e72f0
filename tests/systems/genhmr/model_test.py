"""The box information as a context token of its own: where it stands, that it is read, and that
models without it are what they were."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.core.feedback import DetectedKeypoints
from genhmr_jax.core.sizes import TransformerSpec
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.recover import photo
from genhmr_jax.systems.genhmr.model import ContextEncoder, graphs
from genhmr_jax.systems.genhmr.spec import GenHmrSpec

SPEC = GenHmrSpec(
    transformer=TransformerSpec(width=16, layers=1, heads=2),
    context_tokens=3,
    context_width=16,
    context_depth=1,
)


def encoder(spec: GenHmrSpec) -> ContextEncoder:
    return ContextEncoder(spec, rngs=nnx.Rngs(0))


def test_a_token_of_the_box_alone_at_the_end():
    rng = np.random.default_rng(0)
    keypoints, box = (
        jnp.asarray(rng.uniform(-1, 1, (2, 23, 3)), jnp.float32),
        jnp.asarray(rng.uniform(-0.3, 0.9, (2, 3)), jnp.float32),
    )
    view = CropCamera(100 * box.at[:, 2].add(2), jnp.full(2, 100.0), jnp.zeros((2, 2)))
    box = view.box_information()
    detected = DetectedKeypoints(view, keypoints, jnp.zeros((2, 23, 3)))
    model = encoder(dataclasses.replace(SPEC, box_token=True))
    tokens, plain = model(detected), encoder(SPEC)(detected)
    assert tokens.shape == (2, plain.shape[1] + 1, 16)
    np.testing.assert_allclose(tokens[:, :-1], plain)  # the same draws: the new array is made last
    linear = model.box_alone
    np.testing.assert_allclose(
        tokens[:, -1], box @ linear.kernel[...] + linear.bias[...], rtol=1e-5, atol=1e-6
    )
    other = dataclasses.replace(detected, keypoints=keypoints[::-1])
    np.testing.assert_allclose(model(other)[:, -1], tokens[:, -1])


def test_models_without_it_are_as_they_were():
    names = lambda spec: {
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(graphs(spec)[2])
    }
    more = names(dataclasses.replace(SPEC, box_token=True)) - names(SPEC)
    assert more == {f"['genhmr']['context']['box_alone']['{name}']" for name in ("kernel", "bias")}
    meta = json.loads((photo.default_checkpoint() / "config.json").read_text())
    meta["spec"].pop("box_token", None)  # as models were exported before there was such a field
    assert not GenHmrSpec.from_dict(meta["spec"]).box_token


def test_an_image_only_model_has_it_already():
    with pytest.raises(
        ValueError,
        match="box_token: the context of a model without keypoints is a token of the box already",
    ):
        GenHmrSpec(num_keypoints=0, encoder_channels=(8,), box_token=True)
