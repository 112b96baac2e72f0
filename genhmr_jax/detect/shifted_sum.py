"""Depthwise convolutions on a CPU, with their derivatives."""

import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted_sum(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "R S C"],
    strides: tuple[int, int],
    padding: str,
) -> Array:
    """A depthwise convolution as a sum of shifted slices.

    XLA's own is about ten times slower on a CPU, and so are the derivatives of the slices, which
    are therefore written here: both are sums of shifted slices again.
    """
    x = jnp.pad(x, _margins(x.shape, kernel.shape, strides, padding))
    return _add(part * weight for part, weight in _shifted(x, kernel, strides))


def _margins(
    shape: tuple[int, ...], window: tuple[int, ...], strides: tuple[int, int], padding: str
) -> tuple[tuple[int, int], ...]:
    """TensorFlow's zeros before and after each axis of an input of this shape."""
    if padding != "SAME":
        return ((0, 0),) * 4
    sums = [
        max((-(-n // stride) - 1) * stride + size - n, 0)
        for n, size, stride in zip(shape[1:3], window, strides, strict=False)
    ]
    return ((0, 0), *((n // 2, n - n // 2) for n in sums), (0, 0))


def _shifted(x: Array, kernel: Array, strides: tuple[int, int]) -> Iterator[tuple[Array, Array]]:
    """For each weight (C,) of a kernel, what it multiplies: a strided slice of the input."""
    rows, columns = kernel.shape[:2]
    height = (x.shape[1] - rows) // strides[0] + 1
    width = (x.shape[2] - columns) // strides[1] + 1
    for i in range(rows):
        for j in range(columns):
            down = slice(i, i + (height - 1) * strides[0] + 1, strides[0])
            across = slice(j, j + (width - 1) * strides[1] + 1, strides[1])
            yield x[:, down, across], kernel[i, j]


def _add(parts: Iterable[Array]) -> Array:
    return functools.reduce(jnp.add, parts)


def _forward(x: Array, kernel: Array, strides: tuple[int, int], padding: str) -> tuple:
    return shifted_sum(x, kernel, strides, padding), (x, kernel)


def _backward(
    strides: tuple[int, int], padding: str, saved: tuple[Array, Array], slope: Array
) -> tuple[Array, Array]:
    x, kernel = saved
    margins = _margins(x.shape, kernel.shape, strides, padding)
    padded = jnp.pad(x, margins)
    # 1. Of the kernel: each weight's slice times the slope.
    products = [jnp.sum(part * slope, (0, 1, 2)) for part, _ in _shifted(padded, kernel, strides)]
    # 2. Of the input: the slopes, apart by the strides, under the kernel turned by half a turn.
    spread = [(0, 0, 0)]
    for axis in (0, 1):
        size, window = padded.shape[1 + axis], kernel.shape[axis]
        last = (slope.shape[1 + axis] - 1) * strides[axis] + window
        spread.append((window - 1, window - 1 + size - last, strides[axis] - 1))
    apart = lax.pad(slope, jnp.zeros((), slope.dtype), [*spread, (0, 0, 0)])
    whole = _add(part * weight for part, weight in _shifted(apart, kernel[::-1, ::-1], (1, 1)))
    inside = tuple(slice(low, low + n) for (low, _), n in zip(margins, x.shape, strict=True))
    return whole[inside], jnp.stack(products).reshape(kernel.shape)


shifted_sum.defvjp(_forward, _backward)
