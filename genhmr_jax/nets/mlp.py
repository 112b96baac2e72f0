"""A residual multilayer perceptron."""

import jax
from flax import nnx
from jaxtyping import Array, Float


class ResidualMlp(nnx.Module):
    """x + W2 gelu(W1 LN(x)), `depth` times, between an input and an output projection; in the type of the parameters."""

    def __init__(self, size_in: int, width: int, depth: int, size_out: int, *, rngs: nnx.Rngs):
        self.inp = nnx.Linear(size_in, width, rngs=rngs)
        self.blocks = nnx.Dict(
            {
                f"block_{i:02d}": nnx.Dict(
                    {
                        "norm": nnx.LayerNorm(width, rngs=rngs),
                        "up": nnx.Linear(width, width, rngs=rngs),
                        "down": nnx.Linear(width, width, kernel_init=nnx.initializers.variance_scaling(0.2, "fan_in", "normal"), rngs=rngs),
                    }
                )
                for i in range(depth)
            }
        )
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, size_out, rngs=rngs)

    def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        x = self.inp(x.astype(self.inp.kernel[...].dtype))
        for _, block in sorted(self.blocks.items()):
            x = x + block["down"](jax.nn.gelu(block["up"](block["norm"](x))))
        return self.out(self.norm(x))
