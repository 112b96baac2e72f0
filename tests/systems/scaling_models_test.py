"""What the networks owe to large-scale training: bfloat16 products, float32 where it matters, and
little kept for the backward pass."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from smpl_jax import rotations

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.core.masked_transformer import product_in_float32
from genhmr_jax.core.sizes import TokenizerSpec, TransformerSpec
from genhmr_jax.core.tokenizer import PoseTokenizer
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.nets import vit
from genhmr_jax.nets.deformable_attention import DeformableAttention, bilinear_sample
from genhmr_jax.systems.genhmr.spec import GenHmrSpec
from genhmr_jax.systems.genhmr.system import GenHmrSystem
from support.numpy_layers import with_random_arrays

BATCH, WIDTH, HEADS, LAYERS, POINTS = 2, 32, 2, 1, 4
TOKENIZER = TokenizerSpec(part_tokens=(1,) * 6, codebook_size=40, code_dim=8, width=16)
# Compiling is nearly all of what these tests cost.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
TRANSFORMER = TransformerSpec(width=WIDTH, layers=LAYERS, heads=HEADS, points=POINTS)


@pytest.fixture(scope="module", autouse=True)
def tiny_vit():
    """A ViT of a size that nobody would train, under the name vit_t."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vit.SIZES, "t", (24, 2, 2))
        yield


def system_of(kind: str, remat: str = "none", **changes) -> GenHmrSystem:
    settings = {
        "vit": dict(
            encoder="vit_t", encoder_channels=(24,), pyramid="simple", pyramid_scales=(4.0, 1.0)
        ),
        "maps": dict(encoder_channels=(5, 7)),
        "rank": dict(
            encoder_channels=(5, 7),
            transformer=TransformerSpec(**TRANSFORMER.__dict__ | {"head_rank": 6}),
        ),
        "blind": dict(),
    }[kind]
    return GenHmrSystem(
        GenHmrSpec(
            **{
                "tokenizer": TOKENIZER,
                "transformer": TRANSFORMER,
                "context_width": 32,
                "context_depth": 1,
            }
            | settings
            | changes
        ),
        remat,
    )


def arrays_of(system: GenHmrSystem, seed: int = 0) -> tuple[dict, Inputs, jax.Array]:
    """Random parameters of the scale of trained ones, inputs and tokens."""
    rng, spec = np.random.default_rng(seed), system.spec
    deviation = lambda shape: 0.7 / np.sqrt(max(np.prod(shape[:-1]), 1)) if len(shape) > 1 else 0.3
    params = jax.tree.map(lambda a: rng.normal(0, deviation(a.shape), a.shape), system.shapes)
    keypoints, crop = rng.uniform(0, 300, (BATCH, 23, 3)), rng.uniform(100, 200, (BATCH, 3))
    view = CropCamera(crop, focal=np.full(BATCH, 400.0), centre=np.full((BATCH, 2), 150.0))
    inputs = {"view": view, "keypoints": keypoints}
    if spec.trains_encoder:
        inputs["images"] = rng.uniform(0, 1, (BATCH, 256, 256, 3))
        inputs["drop_path"] = jnp.array([[[1, 2], [0, 2]], [[0, 2], [2, 1]]])
    elif spec.encoder_channels:
        inputs["maps"] = [
            rng.normal(size=(BATCH, 16 // 2**i, 12 // 2**i, c))
            for i, c in enumerate(spec.encoder_channels)
        ]
    tokens = rng.integers(0, TOKENIZER.codebook_size + 1, (BATCH, TOKENIZER.length))
    floats = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (params, Inputs(**inputs)))
    return *floats, jnp.asarray(tokens)


def in_bfloat16(params: dict) -> dict:
    return params | {"genhmr": jax.tree.map(lambda a: a.astype(jnp.bfloat16), params["genhmr"])}


def run(system: GenHmrSystem, params: dict, inputs: Inputs, tokens: jax.Array):
    encoded = system.encode(params, inputs)
    return encoded, system.logits(params, tokens, encoded)


def loss(system: GenHmrSystem, params: dict, inputs: Inputs, tokens: jax.Array) -> jax.Array:
    encoded, logits = run(system, params, inputs, tokens)
    return (
        jnp.sum(jax.nn.logsumexp(logits, -1))
        + jnp.sum(encoded.betas**2)
        + jnp.sum(encoded.weak_camera**2)
    )


def equations(jaxpr):
    """Every equation of a jaxpr and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr"),
        ):
            if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                yield from equations(inner if hasattr(inner, "eqns") else inner.jaxpr)


def products(jaxpr) -> list[tuple[set[str], tuple[int, ...]]]:
    """Of each matrix product and convolution: the types of its operands, the shape of its
    result."""
    found = [
        e for e in equations(jaxpr) if e.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    return [({str(v.aval.dtype) for v in e.invars}, e.outvars[0].aval.shape) for e in found]


@pytest.mark.parametrize("kind", ["vit", "maps", "rank", "blind"])
def test_products_are_bfloat16(kind):
    """Forward, all but the last layers of betas (10) and camera (3); backward, all but those and
    the attention scores' own."""
    system = system_of(kind)
    params, inputs, tokens = arrays_of(system)
    forward = products(
        jax.make_jaxpr(lambda *a: run(system, *a))(in_bfloat16(params), inputs, tokens).jaxpr
    )
    assert len(forward) > 10
    assert sorted(out for types, out in forward if types != {"bfloat16"}) == [
        (BATCH, 3),
        (BATCH, 10),
    ]
    gradient = jax.grad(lambda genhmr, *a: loss(system, params | {"genhmr": genhmr}, *a))
    backward = products(
        jax.make_jaxpr(gradient)(in_bfloat16(params)["genhmr"], inputs, tokens).jaxpr
    )
    scores = [out for types, out in backward if types != {"bfloat16"} and len(out) >= 4]
    head = [out for types, out in backward if types != {"bfloat16"} and len(out) < 4]
    assert len(head) <= 6 and all(
        {3, 10} & set(out) or out == (BATCH, 2 * WIDTH) for out in head
    ), head
    # Two products (to the queries, to the keys) for each attention: the transformer's, the head's,
    # the ViT's one scanned layer.
    assert len(scores) <= 2 * (LAYERS + 1 + (kind == "vit"))


@pytest.mark.parametrize("arch", [pytest.param("parts", marks=pytest.mark.slow), "conv"])
def test_tokenizer_in_bfloat16(arch):
    """Stage 1: bfloat16 products, float32 latent vectors and rotations."""
    spec = TokenizerSpec(arch=arch, num_tokens=12, codebook_size=40, code_dim=8, width=16)
    model = with_random_arrays(lambda: PoseTokenizer(spec, rngs=nnx.Rngs(0)), deviation=0.2)
    graph, state = nnx.split(model)
    half = jax.tree.map(lambda a: a.astype(jnp.bfloat16), state)
    pose = rotations.axis_angle_to_matrix(
        jnp.asarray(np.random.default_rng(0).normal(0, 0.5, (2, 24, 3)), jnp.float32)
    )

    def there_and_back(state):
        model = nnx.merge(graph, state)
        latent = model.encode(pose)
        return latent, model.decode(latent)

    found = products(jax.make_jaxpr(there_and_back)(half).jaxpr)
    assert len(found) > 8 and all(types == {"bfloat16"} for types, _ in found)
    latent, decoded = jit(there_and_back)(half)
    wanted_latent, wanted = jit(there_and_back)(state)
    assert latent.dtype == decoded.dtype == jnp.float32
    np.testing.assert_allclose(
        latent, wanted_latent, atol=0.03 * float(jnp.abs(wanted_latent).max())
    )
    np.testing.assert_allclose(decoded, wanted, atol=0.1)
    np.testing.assert_allclose(
        decoded @ decoded.mT, jnp.broadcast_to(jnp.eye(3), decoded.shape), atol=1e-5
    )


@pytest.mark.parametrize("kind", ["vit", "rank"])
def test_float32_where_it_matters(kind):
    system = system_of(kind)
    params, inputs, tokens = arrays_of(system)
    encoded, logits = jax.eval_shape(
        lambda *a: run(system, *a), in_bfloat16(params), inputs, tokens
    )
    assert logits.dtype == encoded.betas.dtype == encoded.weak_camera.dtype == jnp.float32
    assert encoded.context.dtype == jnp.bfloat16
    assert {v.dtype for v in jax.tree.leaves(encoded.image_values)} == {jnp.dtype(jnp.bfloat16)}
    jaxpr = jax.make_jaxpr(lambda *a: run(system, *a))(in_bfloat16(params), inputs, tokens).jaxpr
    # exp: softmax and the camera's scale; rsqrt: LayerNorm; floor: sampling positions; logistic:
    # reference points
    for name in ("exp", "rsqrt", "floor", "logistic"):
        types = {str(e.invars[0].aval.dtype) for e in equations(jaxpr) if e.primitive.name == name}
        assert types == {"float32"}, name


@pytest.mark.parametrize("kind", ["vit", "rank"])
def test_bfloat16_stays_close_to_float32(kind):
    system = system_of(kind)
    params, inputs, tokens = arrays_of(system)
    both = jit(lambda *a: run(system, *a))
    (exact, wanted), (rounded, found) = (
        both(params, inputs, tokens),
        both(in_bfloat16(params), inputs, tokens),
    )
    assert 0.001 < float(jnp.sqrt(jnp.mean((found - wanted) ** 2)) / jnp.std(wanted)) < 0.05
    np.testing.assert_allclose(
        rounded.betas, exact.betas, atol=0.05 * float(jnp.abs(exact.betas).max())
    )
    np.testing.assert_allclose(
        rounded.weak_camera, exact.weak_camera, atol=0.05 * float(jnp.abs(exact.weak_camera).max())
    )


def test_gradients_of_bfloat16_point_the_same_way():
    system = system_of("maps")
    params, inputs, tokens = arrays_of(system)

    def flat(params):
        gradient = jit(
            jax.grad(lambda genhmr: loss(system, params | {"genhmr": genhmr}, inputs, tokens))
        )(params["genhmr"])
        return np.concatenate(
            [np.asarray(g, np.float64).ravel() for g in jax.tree.leaves(gradient)]
        )

    wanted, found = flat(params), flat(in_bfloat16(params))
    assert found @ wanted / np.linalg.norm(found) / np.linalg.norm(wanted) > 0.99


def test_sampling_positions_are_not_rounded():
    """A map of 200 columns, 0 left of column 160 and 1 from there on, seen from the edge: the
    result is the place within a pixel.

    In bfloat16 places would be a whole pixel apart there.
    """
    layer = DeformableAttention(4, 1, 1, 1, rngs=nnx.Rngs(0))
    layer.value.kernel.set_value(jnp.eye(4))
    layer.out.kernel.set_value(jnp.eye(4))
    layer.offset.bias.set_value(jnp.zeros(2))
    graph, state = nnx.split(layer)
    layer = nnx.merge(graph, jax.tree.map(lambda a: a.astype(jnp.bfloat16), state))
    image = jnp.broadcast_to((jnp.arange(200) >= 160)[None, None, :, None], (1, 4, 200, 4)).astype(
        jnp.bfloat16
    )
    places = jnp.linspace(159.5, 160.5, 11)
    reference = jnp.stack([places / 200, jnp.full(11, 0.5)], -1)[None]
    found = layer(jnp.zeros((1, 11, 4), jnp.bfloat16), reference, layer.values([image]))
    sampled = bilinear_sample(
        jnp.ones((1, 1, 4, 4, 2), jnp.bfloat16), jnp.full((1, 3, 1, 1, 2), 0.3, jnp.float32)
    )
    assert found.dtype == sampled.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found[0, :, 0], np.float32), places - 159.5, atol=0.005)


def test_product_in_float32():
    rng = np.random.default_rng(0)
    x, w = (
        jnp.asarray(rng.normal(size=(3, 5, 16)), jnp.float32),
        jnp.asarray(rng.normal(size=(16, 7)), jnp.float32),
    )
    gradient = lambda product: jax.grad(lambda x, w: jnp.sum(jnp.sin(product(x, w))), (0, 1))(x, w)
    np.testing.assert_array_equal(product_in_float32(x, w), x @ w)
    for found, wanted in zip(gradient(product_in_float32), gradient(jnp.matmul), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    x, w = x.astype(jnp.bfloat16), w.astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    np.testing.assert_allclose(product_in_float32(x, w), exact, atol=1e-5)
    assert np.abs(np.asarray(x @ w, np.float64) - exact).max() > 1e-3


@pytest.mark.parametrize("remat", [pytest.param("products", marks=pytest.mark.slow), "blocks"])
def test_remat_changes_no_value_and_no_gradient(remat):
    params, inputs, tokens = arrays_of(system_of("maps"))
    gradient = lambda remat: jit(
        jax.value_and_grad(
            lambda genhmr: loss(
                system_of("maps", remat), params | {"genhmr": genhmr}, inputs, tokens
            )
        )
    )(params["genhmr"])
    for plain, found in zip(
        jax.tree.leaves(gradient("none")), jax.tree.leaves(gradient(remat)), strict=True
    ):
        np.testing.assert_allclose(
            found, plain, rtol=1e-3, atol=1e-3 * max(float(jnp.abs(plain).max()), 0.1)
        )


def test_what_was_encoded_under_remat_can_be_read_without():
    """Sampling after a training step's encode: the same logits whichever of the two computes the
    layers' values."""
    plain, remat = system_of("maps"), system_of("maps", "products")
    params, inputs, tokens = arrays_of(plain)
    mixed = jit(lambda: plain.logits(params, tokens, remat.encode(params, inputs)))()
    np.testing.assert_allclose(
        mixed, jit(lambda: run(plain, params, inputs, tokens)[1])(), atol=1e-5
    )


def kept_shapes(system: GenHmrSystem, kind: str = "maps") -> list[tuple[int, ...]]:
    """Shapes of what the forward pass hands to the backward pass, parameters left out."""
    params, inputs, tokens = arrays_of(system)
    backward = jax.eval_shape(
        lambda genhmr: jax.vjp(
            lambda genhmr: loss(system, params | {"genhmr": genhmr}, inputs, tokens), genhmr
        )[1],
        params["genhmr"],
    )
    parameters = {a.shape for a in jax.tree.leaves(params["genhmr"])}
    return [a.shape for a in jax.tree.leaves(backward) if a.shape not in parameters]


def test_remat_keeps_no_samples_of_the_deformable_attention():
    """Neither a layer's values, nor their transpose, nor the samples of any level or corner."""
    size = WIDTH // HEADS
    samples = {(BATCH, HEADS, 6 * POINTS, size), (BATCH, 6, HEADS, POINTS, size)}
    values = {(BATCH, 16 // s, 12 // s, HEADS, size) for s in (1, 2)} | {
        (BATCH, HEADS, 16 * 12 // s**2, size) for s in (1, 2)
    }
    none, blocks = (
        set(kept_shapes(system_of("maps"))),
        set(kept_shapes(system_of("maps", "blocks"))),
    )
    assert none & samples and not blocks & (samples | values)


def test_what_remat_keeps_grows_by_one_layer_input():
    """A further layer of the transformer: its input (B, S, C), its parameters (stacked for the
    scan), and no array of the image."""
    with_layers = lambda layers, remat: system_of(
        "maps", remat, transformer=TransformerSpec(**TRANSFORMER.__dict__ | {"layers": layers})
    )
    elements = lambda layers, remat: sum(
        int(np.prod(s)) for s in kept_shapes(with_layers(layers, remat))
    )
    sequence = BATCH * (TOKENIZER.length + 6) * WIDTH
    block = with_layers(1, "blocks").shapes["genhmr"]["transformer"]["blocks"]["block_00"]
    parameters = sum(x.size for x in jax.tree.leaves(block))
    assert elements(2, "blocks") - elements(1, "blocks") <= 2 * sequence + parameters
    assert elements(2, "none") - elements(1, "none") > 20 * sequence


@pytest.mark.parametrize("kind", ["maps", "blind"])
def test_unknown_remat(kind):
    system = system_of(kind, "everything")
    params, inputs, tokens = arrays_of(system)
    with pytest.raises(ValueError, match="unknown remat 'everything': choose among none, "):
        jax.eval_shape(functools.partial(run, system), params, inputs, tokens)


def test_drop_path_reaches_the_encoder():
    system = system_of("vit")
    params, inputs, _ = arrays_of(system)
    encode = jit(
        lambda drop_path: system.encode(params, dataclasses.replace(inputs, drop_path=drop_path))
    )
    ones = jnp.ones((BATCH, 2, 2))
    plain, dropped = encode(ones), encode(ones.at[0].set(0.0))
    gap = [
        np.abs(np.asarray(a - b)).reshape(BATCH, -1).max(-1)
        for a, b in zip(*map(jax.tree.leaves, (plain, dropped)), strict=True)
    ]
    assert np.max(gap, 0)[0] > 0.01 and np.max(gap, 0)[1] < 1e-5
    without = jit(lambda: system.encode(params, dataclasses.replace(inputs, drop_path=None)))()
    np.testing.assert_allclose(without.betas, plain.betas, atol=1e-5)
