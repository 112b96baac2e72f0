"""FLOPs of a traced function: what the model asks for, whatever the compiler makes of it.

Counted are matrix products and convolutions, 2 x multiply-adds, as in the usual definition of model
FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B). Element-wise work is left out: it is a
few per cent of a transformer and is bound by memory. XLA's own count (`compiled.cost_analysis()`)
takes a loop's body once, so a scanned network looks as if it had one block.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core


def function_flops(fn: Callable[..., Any], *abstract_args: Any) -> int:
    """FLOPs of one call of `fn`; the arguments may be arrays or pytrees of `jax.ShapeDtypeStruct`.
    Nothing is computed."""
    return jaxpr_flops(jax.make_jaxpr(fn)(*abstract_args))


def jaxpr_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """FLOPs of matrix products and convolutions in a jaxpr, 2 x multiply-adds.

    A `scan` counts its length times, and so does a `fori_loop` of constant bounds, which JAX writes
    as a scan. A `while` counts one turn: how often it turns is known only when it runs. Of a `cond`
    the costliest branch counts; inside a `shard_map`, every device.
    """
    equations = jaxpr.jaxpr.eqns if isinstance(jaxpr, core.ClosedJaxpr) else jaxpr.eqns
    return sum(_equation_flops(equation) for equation in equations)


def _equation_flops(equation: core.JaxprEqn) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _dot_flops(equation)
    if name == "conv_general_dilated":
        return _convolution_flops(equation)
    if name.startswith("dot_product_attention"):
        return _attention_flops(equation)
    if name == "cond":
        return max(jaxpr_flops(branch) for branch in params["branches"])
    # What is left runs each jaxpr that it holds: jit, remat, custom_jvp, custom_vjp, while
    # (condition and body) once, scan many times.
    inner = sum(
        jaxpr_flops(value)
        for value in params.values()
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr)
    )
    if name == "scan":
        return inner * params["length"]
    return inner * (params["mesh"].size if name == "shard_map" else 1)


def _dot_flops(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return (
        2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
    )


def _attention_flops(equation: core.JaxprEqn) -> int:
    """cuDNN's attention, one operation: two products forward, four backward (what it computes a
    second time does not count)."""
    (batch, queries, heads, head), keys = (
        equation.invars[0].aval.shape,
        equation.invars[1].aval.shape[1],
    )
    products = 4 if "_bwd" in equation.primitive.name else 2
    return products * 2 * batch * heads * queries * keys * head


def _convolution_flops(equation: core.JaxprEqn) -> int:
    """Products of a kernel element with a padding zero, or with a zero between dilated inputs, do
    not count; nor do they in XLA."""
    params = equation.params
    (left, right), output = (v.aval.shape for v in equation.invars), equation.outvars[0].aval.shape
    left_spec, right_spec, output_spec = params["dimension_numbers"]
    flops = 2 * output[output_spec[0]] * output[output_spec[1]] * right[right_spec[1]]
    for axis, (low, _) in enumerate(params["padding"]):
        at = np.arange(output[output_spec[2 + axis]])[:, None] * params["window_strides"][axis]
        at = at + np.arange(right[right_spec[2 + axis]]) * params["rhs_dilation"][axis] - low
        dilation = params["lhs_dilation"][axis]
        flops *= int(
            np.sum(
                (at >= 0)
                & (at <= (left[left_spec[2 + axis]] - 1) * dilation)
                & (at % dilation == 0)
            )
        )
    return flops
