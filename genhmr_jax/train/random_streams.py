"""Named random streams of one seed.

`seed + 1`, `seed + 2`, ... gives the same key to two purposes as soon as two places choose the same
number, and the same keys to neighbouring seeds. A stream is found by its name instead; each name
belongs to one purpose.
"""

import jax

STREAMS = (
    "parameters",  # initial parameters
    "random_tokenizer",  # a tokenizer that is not trained, for tests of the regressor
    "step",  # what changes with every training step: replacement of unused codes
    "augmentation",  # of the rows of a batch (tokenizer, lifter)
    "views",  # simulated views of training poses
    "view_rows",  # masks, corruption and dropout of simulated views
    "image_rows",  # the same of images
    "drop_path",  # stochastic depth of a regressor's encoder
    "validation_views",  # simulated views of validation poses
    "sampling",  # draws of uncertainty-guided sampling in an evaluation
)


def stream(seed: int, name: str) -> jax.Array:
    """The typed key of a stream: fold_in(key(seed), position of the name in STREAMS).

    Args:
      seed: of the run; may be traced.
      name: one of STREAMS.

    Raises:
      ValueError: there is no such stream.
    """
    return jax.random.fold_in(jax.random.key(seed), STREAMS.index(name))
