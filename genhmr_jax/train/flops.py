"""FLOPs of a traced function, which do not depend on the compiler.

Matrix products and convolutions are counted, 2 x multiply-adds, as in the usual definition of model
FLOPs utilisation (Chowdhery et al. 2022, PaLM, appendix B). Element-wise operations are left out:
they are a few per cent of a transformer and limited by memory. XLA's own count
(`compiled.cost_analysis()`) includes the body of a loop once: a scanned network would count as one
block.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.extend import core


def function_flops(fn: Callable[..., Any], *abstract_args: Any) -> int:
    """Count the FLOPs of one call of `fn`, which is only traced.

    The arguments are arrays or pytrees of `jax.ShapeDtypeStruct`.
    """
    return jaxpr_flops(jax.make_jaxpr(fn)(*abstract_args))


def jaxpr_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """Count the FLOPs of matrix products and convolutions in a jaxpr, 2 x multiply-adds.

    The body of a `scan` counts once for each step, and so does that of a `fori_loop` with constant
    bounds, which JAX writes as a scan. A `while` counts one iteration, because the number of
    iterations is known only at run time. A `cond` counts its most expensive branch, a `shard_map`
    every device.
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
    # The others run each of their jaxprs: jit, remat, custom_jvp, custom_vjp and while (condition
    # and body) once, scan many times.
    is_jaxpr = lambda value: isinstance(value, core.ClosedJaxpr | core.Jaxpr)
    inner = sum(jaxpr_flops(value) for value in params.values() if is_jaxpr(value))
    if name == "scan":
        return inner * params["length"]
    return inner * (params["mesh"].size if name == "shard_map" else 1)


def _dot_flops(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left, output = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
    return 2 * math.prod(output) * math.prod(left[axis] for axis in contracted)


def _attention_flops(equation: core.JaxprEqn) -> int:
    """cuDNN's attention, one operation with two products forward and four backward.

    Products that the backward pass computes again do not count.
    """
    batch, queries, heads, head = equation.invars[0].aval.shape
    keys = equation.invars[1].aval.shape[1]
    products = 4 if "_bwd" in equation.primitive.name else 2
    return products * 2 * batch * heads * queries * keys * head


def _convolution_flops(equation: core.JaxprEqn) -> int:
    """A convolution, without products with padding or with zeros between dilated inputs.

    XLA counts in the same way.
    """
    params = equation.params
    left, right = (v.aval.shape for v in equation.invars)
    output = equation.outvars[0].aval.shape
    left_spec, right_spec, output_spec = params["dimension_numbers"]
    flops = 2 * output[output_spec[0]] * output[output_spec[1]] * right[right_spec[1]]
    for axis, (low, _) in enumerate(params["padding"]):
        at = np.arange(output[output_spec[2 + axis]])[:, None] * params["window_strides"][axis]
        at = at + np.arange(right[right_spec[2 + axis]]) * params["rhs_dilation"][axis] - low
        dilation = params["lhs_dilation"][axis]
        last = (left[left_spec[2 + axis]] - 1) * dilation
        flops *= int(np.sum((at >= 0) & (at <= last) & (at % dilation == 0)))
    return flops
