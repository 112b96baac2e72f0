"""Named random streams of one seed.

Keys of `seed + 1`, `seed + 2`, ... would coincide for successive seeds, or if two uses chose the
same number. Therefore each use has a stream with its own name.
"""

import jax

STREAMS = (
    "parameters",  # initial parameters
    "random_tokenizer",  # an untrained tokenizer, for tests of the regressor
    "step",  # one key a training step: replacement of unused codes
    "augmentation",  # of the rows of a batch (tokenizer, lifter)
    "views",  # simulated views of training poses
    "view_rows",  # masks, corruption and dropout of simulated views
    "image_rows",  # masks, corruption and dropout of images
    "drop_path",  # stochastic depth of a regressor's encoder
    "validation_views",  # simulated views of validation poses
    "sampling",  # draws of uncertainty-guided sampling in an evaluation
    "marker_errors",  # of markers with which bands of joint angles are calibrated and evaluated
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
