"""The networks of the shipped model: tokenizer, encoder of the inputs, and one decoder step."""

import jax
import numpy as np

from benchmarks import machine
from benchmarks.photo import SOURCE, people_of_sample, recoverer
from benchmarks.settings import Settings
from benchmarks.table import Row
from benchmarks.timing import median_seconds
from genhmr_jax.core.inputs import conditioned
from genhmr_jax.core.quantizer import nearest
from genhmr_jax.geometry.keypoints import keypoint_model
from genhmr_jax.systems.genhmr.model import tokenizer as tokenizer_of
from genhmr_jax.train.flops import function_flops

BATCHES = (1, 64)


def rows(settings: Settings) -> list[Row]:
    """Tokenizer (rotations to tokens and back), encoder, and one decoder step, at each batch."""
    model = recoverer()
    system, params = model.system, model.params
    vectors, body = params["codebook"]["vectors"], keypoint_model(model.body)

    def tokenizer(params: dict, rotmats: jax.Array) -> jax.Array:
        networks = tokenizer_of(system.spec, params)
        vectors = params["codebook"]["vectors"]
        return networks.decode(vectors[nearest(vectors, networks.encode(rotmats))])

    def decoder(params: dict, tokens: jax.Array, encoded) -> jax.Array:
        steps = system.steps(params, body, encoded)
        return steps.predict(tokens, steps.start())[0]

    found, rng = [], np.random.default_rng(0)
    for batch in BATCHES:
        inputs = conditioned(people_of_sample(batch), "all")
        rotmats = jax.device_put(np.tile(np.eye(3, dtype=np.float32), (batch, 24, 1, 1)))
        encoded = jax.jit(system.encode)(params, inputs)
        length = system.spec.tokenizer.length
        tokens = jax.device_put(rng.integers(0, len(vectors) + 1, (batch, length), dtype=np.int32))
        for name, function, arguments in (
            ("tokenizer, encode and decode", tokenizer, (rotmats,)),
            ("encoder", system.encode, (inputs,)),
            ("decoder step", decoder, (tokens, encoded)),
        ):
            compiled = jax.jit(function)
            call = lambda f=compiled, a=arguments: jax.block_until_ready(f(params, *a))
            flops = function_flops(function, params, *arguments)
            moved = sum(x.nbytes for x in jax.tree.leaves(used(name, params)))
            moved += sum(x.nbytes for x in jax.tree.leaves(arguments))
            found.append(
                Row(
                    f"{name}, batch {batch}",
                    median_seconds(call, 4 * settings.calls),
                    floor=machine.floor(flops, moved),
                    floor_from=f"{SOURCE}; parameters, inputs",
                )
            )
    return found


def used(name: str, params: dict) -> list:
    """The parameters that a part reads."""
    if name.startswith("tokenizer"):
        return [params["tokenizer"], params["codebook"]]
    encoder, decoder = ("context", "head", "pyramid", "cell"), ("transformer", "correction")
    parts = {"encoder": encoder, "decoder step": decoder}[name]
    return [params["genhmr"][part] for part in parts if part in params["genhmr"]]
