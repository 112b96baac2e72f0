"""A tiny model of hands with random weights."""

import jax
import pytest
from flax import nnx

from genhmr_jax.core import quantizer
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.hand import load_hand
from genhmr_jax.recover.hands import HandRecoverer
from genhmr_jax.systems.maskhand.model import MaskHand
from genhmr_jax.systems.maskhand.spec import MaskHandSpec
from genhmr_jax.systems.maskhand.system import MaskHandSystem

SPEC = MaskHandSpec(
    TokenizerSpec(
        part_tokens=(2,) * 6, codebook_size=16, code_dim=4, width=8, depth=1, skeleton="hand"
    ),
    TransformerSpec(width=16, layers=1, heads=2, mlp_ratio=2),
    gapr_blocks=1,
    encoder="hand_landmarks",
    feedback=True,
    correction_width=16,
    correction_depth=1,
    token_features=8,
    score_width=16,
)


@pytest.fixture(scope="session")
def hand_recoverer() -> HandRecoverer:
    tokenizer = PoseTokenizer(SPEC.tokenizer, rngs=nnx.Rngs(1))
    model = MaskHand(SPEC, rngs=nnx.Rngs(2))
    pure = lambda module: nnx.to_pure_dict(nnx.split(module)[1])
    codebook = quantizer.init_codebook(jax.random.key(3), 16, 4)
    params = {
        "maskhand": pure(model),
        "tokenizer": pure(tokenizer),
        "codebook": {"vectors": codebook["vectors"]},
    }
    return HandRecoverer(MaskHandSystem(SPEC), params, load_hand())
