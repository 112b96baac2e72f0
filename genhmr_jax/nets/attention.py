"""Attention of all networks here: a fused kernel where the platform has one, else plain products.

On a GPU: cuDNN's flash attention (`jax.nn.dot_product_attention`), which never writes the scores to
memory. It takes bfloat16 and float16, and heads of at most 128 numbers, a multiple of 8 (those of a
ViT-H have 80). It needs compute capability 8.0 (Ampere). XLA computes short sequences and those
with a mask. The order in which cuDNN sums gradients varies;
XLA_FLAGS=--xla_gpu_deterministic_ops=true makes them repeatable.

On a TPU: XLA. Flash and splash attention of `jax.experimental.pallas` require sequences and heads
in multiples of 128. The 192 tokens of a ViT-H would be padded to 256 and its heads from 80 to 128:
2.8 times the work in the products, and more memory traffic on v5e, while XLA keeps most scores in
on-chip memory (benchmarks/attention_aot.py; docs/pretrained.md has the numbers).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Tokens. Below this length a separate kernel costs more to launch than it saves.
SHORT = 128
LARGEST_HEAD = 128


def attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S N H"],
    v: Float[Array, "B S N H"],
    mask: Bool[Array, "B #N #T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H)) v for each of N heads, the softmax in float32 (Vaswani et al. 2017).

    Args:
      q: queries.
      k: keys.
      v: values.
      mask: False where a query must not attend to a key.
    """
    if mask is None and flash_fits(q, k) and cudnn_runs():
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    return reference(q, k, v, mask)


def reference(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B S N H"],
    v: Float[Array, "B S N H"],
    mask: Bool[Array, "B #N #T S"] | None = None,
) -> Float[Array, "B T N H"]:
    """`attention` in plain products, which XLA compiles for any platform, type and shape."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")


def flash_fits(q: Float[Array, "B T N H"], k: Float[Array, "B S N H"]) -> bool:
    """Whether cuDNN's flash attention accepts these types and shapes, and is faster for them."""
    head = q.shape[-1]
    types = q.dtype == k.dtype and q.dtype in (jnp.bfloat16, jnp.float16)
    return types and head % 8 == 0 and head <= LARGEST_HEAD and min(q.shape[1], k.shape[1]) >= SHORT


def cudnn_runs() -> bool:
    """Whether a program that is traced now will run on a GPU with cuDNN's flash attention.

    A program is traced on the platform on which it will run. The exception is `genhmr aot`, which
    compiles for absent TPUs: it makes the CPU the only platform of JAX.
    """
    chosen = jax.config.jax_default_device
    if chosen is not None and getattr(chosen, "platform", chosen) not in ("gpu", "cuda"):
        return False
    return jax.default_backend() == "gpu" and _has_flash_attention(jax.local_devices()[0])


@functools.cache
def _has_flash_attention(device: jax.Device) -> bool:
    """Whether a "gpu" is NVIDIA's, of Ampere or later (the name covers AMD's GPUs too)."""
    if "cuda" not in device.client.platform_version:
        return False
    return tuple(int(part) for part in device.compute_capability.split(".")) >= (8, 0)
