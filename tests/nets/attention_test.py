"""Attention: the plain form against float64 NumPy, when cuDNN's kernel is taken, and that programs
with it lower for NVIDIA's GPUs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from genhmr_jax.nets import attention
from genhmr_jax.nets.attention import LARGEST_HEAD, SHORT, flash_fits
from genhmr_jax.nets.vit import Vit, VitSpec
from genhmr_jax.train.flops import function_flops


def in_float64(q, k, v, mask=None):
    scores = np.einsum("btnh,bsnh->bnts", *(np.asarray(x, np.float64) for x in (q, k))) / np.sqrt(
        q.shape[-1]
    )
    scores = np.where(True if mask is None else mask, scores, -np.inf)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum(
        "bnts,bsnh->btnh", share / share.sum(-1, keepdims=True), np.asarray(v, np.float64)
    )


def arrays(queries, keys, heads=3, head=8, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(2, n, heads, head)), dtype) for n in (queries, keys, keys)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_against_float64(dtype, tolerance):
    q, k, v = arrays(5, 7, dtype=dtype)
    mask = np.random.default_rng(1).random((2, 1, 1, 7)) < 0.7
    mask[..., 0] = True
    for seen in (None, jnp.asarray(mask)):
        found = attention.attention(q, k, v, seen)
        assert found.dtype == dtype and found.shape == (2, 5, 3, 8)
        np.testing.assert_allclose(
            np.asarray(found, np.float64), in_float64(q, k, v, seen), atol=tolerance
        )
        np.testing.assert_array_equal(
            found, attention.reference(q, k, v, seen)
        )  # there is no other path on a CPU


def test_what_the_flash_kernel_takes():
    def fits(*changes, **more):
        q, k, _ = (
            jax.ShapeDtypeStruct(x.shape, x.dtype)
            for x in jax.eval_shape(functools.partial(arrays, *changes, **more))
        )
        return flash_fits(q, k)

    vit_h = {"heads": 16, "head": 80, "dtype": jnp.bfloat16}
    assert (
        fits(192, 192, **vit_h)
        and fits(253, 253, **vit_h | {"head": 64})
        and fits(192, 192, **vit_h | {"dtype": jnp.float16})
    )
    assert not fits(192, 192, **vit_h | {"dtype": jnp.float32})
    assert not fits(192, 192, **vit_h | {"head": 84}) and not fits(
        192, 192, **vit_h | {"head": LARGEST_HEAD + 8}
    )
    assert not fits(SHORT - 1, 192, **vit_h) and not fits(1, 192, **vit_h)


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """JAX traces as where there is a GPU of compute capability 9.0 with cuDNN 9.10; nothing can
    run."""
    fused = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    if not (hasattr(fused, "check_cudnn_version") and hasattr(fused, "check_compute_capability")):
        pytest.skip("this JAX asks for its cuDNN in another way, which cannot be answered here")
    monkeypatch.setattr(attention, "cudnn_runs", lambda: True)
    monkeypatch.setattr(fused, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(fused, "check_compute_capability", lambda _: True)
    jax.clear_caches()
    yield
    jax.clear_caches()


SPEC = VitSpec(width=32, depth=3, heads=2, image=(192, 256))


def gradient_of_a_vit(dtype, remat):
    graph, state = nnx.split(nnx.eval_shape(lambda: Vit(SPEC, rngs=nnx.Rngs(0))))
    state = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), state)
    loss = jax.grad(
        lambda state, x: jnp.sum(nnx.merge(graph, state)(x, None, remat)[0].astype(jnp.float32))
    )
    return loss, (state, jax.ShapeDtypeStruct((2, *SPEC.image, 3), dtype))


@pytest.mark.parametrize("remat", ["none", "blocks"])
def test_a_vit_lowers_with_cudnn_for_gpus(as_on_a_gpu, remat):
    """In the scan over its blocks, forward, again forward with remat, and backward."""
    loss, arguments = gradient_of_a_vit(jnp.bfloat16, remat)
    text = jax.jit(loss).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    forward, backward = (
        text.count(f'"__cudnn$fmhaSoftmax{end}"') + text.count(f"@__cudnn$fmhaSoftmax{end}(")
        for end in ("", "Backward")
    )
    assert backward >= 1 and forward >= (2 if remat == "blocks" else 1)


def test_in_float32_nothing_changes_on_gpus(as_on_a_gpu):
    loss, arguments = gradient_of_a_vit(jnp.float32, "none")
    assert (
        "cudnn" not in jax.jit(loss).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()
    )


def test_a_gpu_that_is_not_asked_for_is_not_used(monkeypatch):
    """`jax.default_device` says where a program runs."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(attention, "_has_flash_attention", lambda device: True)
    assert attention.cudnn_runs()
    with jax.default_device(jax.devices("cpu")[0]):
        assert not attention.cudnn_runs()


class Device:
    def __init__(self, version, capability):
        self.client, self.compute_capability = self, capability
        self.platform_version = version


def test_gpus_without_flash_attention():
    known = {
        ("PJRT C API\ncuda 12090", "9.0"): True,
        ("cuda 12090", "8.0"): True,
        ("cuda 12090", "7.5"): False,
        ("rocm 60200", "gfx942"): False,
    }
    assert {key: attention._has_flash_attention(Device(*key)) for key in known} == known


def test_flops_are_those_of_the_plain_form(as_on_a_gpu, monkeypatch):
    loss, arguments = gradient_of_a_vit(jnp.bfloat16, "none")
    fast = function_flops(loss, *arguments)
    monkeypatch.setattr(attention, "cudnn_runs", lambda: False)
    jax.clear_caches()
    assert fast == function_flops(loss, *arguments)
