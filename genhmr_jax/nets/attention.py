"""Attention, for every network here: the fast kernel of the platform where there is one for these arrays, else products and a softmax.

On a GPU: cuDNN's flash attention (`jax.nn.dot_product_attention`), which never writes the scores to memory. It takes bfloat16 and
float16 and heads of up to 128 numbers, a multiple of 8 (a ViT-H's have 80); it needs compute capability 8.0 (Ampere). Short sequences
and those with a mask stay with XLA. Its gradients are summed in no fixed order; XLA_FLAGS=--xla_gpu_deterministic_ops=true makes
them repeatable.

On a TPU: XLA. Flash and splash attention of `jax.experimental.pallas` want sequences and heads in multiples of 128: the 192 tokens of a
ViT-H would become 256, its heads of 80 become 128, 2.8 times the work in the products and more traffic, while XLA holds most scores
in the memory on the chip (benchmarks/attention_aot.py; docs/pretrained.md has the numbers).
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SHORT = 128  # tokens: below, the scores are few and a kernel of its own costs more to start than it saves
LARGEST_HEAD = 128


def attention(
    q: Float[Array, "B T N H"], k: Float[Array, "B S N H"], v: Float[Array, "B S N H"], mask: Bool[Array, "B #N #T S"] | None = None
) -> Float[Array, "B T N H"]:
    """softmax(q k^T / sqrt(H)) v for each of N heads, the softmax in float32 (Vaswani et al. 2017).

    Args:
      mask: False where a query does not see a key.
    """
    if mask is None and flash_fits(q, k) and cudnn_runs():
        return jax.nn.dot_product_attention(q, k, v, implementation="cudnn")
    return reference(q, k, v, mask)


def reference(
    q: Float[Array, "B T N H"], k: Float[Array, "B S N H"], v: Float[Array, "B S N H"], mask: Bool[Array, "B #N #T S"] | None = None
) -> Float[Array, "B T N H"]:
    """`attention` written out in plain products, which XLA compiles for any platform, type and shape."""
    return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="xla")


def flash_fits(q: Float[Array, "B T N H"], k: Float[Array, "B S N H"]) -> bool:
    """Whether cuDNN's flash attention takes such arrays (types, shapes), and they are long enough to be worth it."""
    head = q.shape[-1]
    types = q.dtype == k.dtype and q.dtype in (jnp.bfloat16, jnp.float16)
    return types and head % 8 == 0 and head <= LARGEST_HEAD and min(q.shape[1], k.shape[1]) >= SHORT


def cudnn_runs() -> bool:
    """Whether programs that are traced now run on GPUs with cuDNN's flash attention.

    A program is traced for the platform that it will run on: `genhmr aot`, which compiles for TPUs that are not here, makes the CPU the
    only platform that JAX sees.
    """
    chosen = jax.config.jax_default_device
    if chosen is not None and getattr(chosen, "platform", chosen) not in ("gpu", "cuda"):
        return False
    return jax.default_backend() == "gpu" and _has_flash_attention(jax.local_devices()[0])


@functools.cache
def _has_flash_attention(device: jax.Device) -> bool:
    """NVIDIA's, of Ampere or later. AMD's GPUs are called "gpu" too."""
    if "cuda" not in device.client.platform_version:
        return False
    return tuple(int(part) for part in device.compute_capability.split(".")) >= (8, 0)
