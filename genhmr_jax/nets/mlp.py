"""A residual multilayer perceptron."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from genhmr_jax.nets.rows import by_rows


class ResidualMlp(nnx.Module):
    """x + W2 gelu(W1 LN(x)), `depth` times, between an input and an output projection.

    It computes in the type of its parameters.
    """

    def __init__(self, size_in: int, width: int, depth: int, size_out: int, *, rngs: nnx.Rngs):
        small = nnx.initializers.variance_scaling(0.2, "fan_in", "normal")

        def block() -> nnx.Dict:
            layers = {
                "norm": nnx.LayerNorm(width, rngs=rngs),
                "up": nnx.Linear(width, width, rngs=rngs),
                "down": nnx.Linear(width, width, kernel_init=small, rngs=rngs),
            }
            return nnx.Dict(layers)

        self.inp = nnx.Linear(size_in, width, rngs=rngs)
        self.blocks = nnx.Dict({f"block_{i:02d}": block() for i in range(depth)})
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, size_out, rngs=rngs)

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        x = by_rows(self.inp(x.astype(self.inp.kernel[...].dtype)))
        for _, block in sorted(self.blocks.items()):
            x = by_rows(x + block["down"](jax.nn.gelu(block["up"](block["norm"](x)))))
        return by_rows(self.out(self.norm(x)))
