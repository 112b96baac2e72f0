"""The samples of validation, for both stages."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from genhmr_jax.data import poses, views
from genhmr_jax.data.rows import Rows
from genhmr_jax.systems.posturehmr.coarse_body import CoarseBody
from genhmr_jax.systems.posturehmr.samples import Sample, Samples, sample_of
from genhmr_jax.train.random_streams import stream
from genhmr_jax.train.task import Place


def groups_of(samples: Samples, coarse: CoarseBody, place: Place) -> dict[str, list[Sample]]:
    """Batches of simulated views ("val") and of stored images ("val_image"), if there are any.

    The weight of a row is 1, or 0 if it fills up a batch.
    """
    config, groups = samples.config, {}
    if config.batch_size:
        corpus = poses.load_corpus(config.data.poses, "val")
        count = math.ceil(config.evaluate_poses / config.batch_size)
        chosen = np.linspace(0, len(corpus.poses) - 1, count * config.batch_size).astype(int)
        base = stream(config.seed, "validation_views")
        batches = [poses.PoseRows(corpus.poses[c], np.uint32(c)) for c in np.split(chosen, count)]
        make = lambda batch: _view_sample(coarse, place(batch), base, samples.view)
        groups["val"] = [make(batch) for batch in batches]
    if images := [_sample(rows) for rows in samples.images.validation(place)]:
        groups["val_image"] = images
    return groups


@jax.jit
def _sample(rows: Rows) -> Sample:
    """A sample with the rows' own weights."""
    weight = jnp.ones(rows.size) if rows.weight is None else rows.weight
    keys = jax.random.split(jax.random.key(0), rows.size)
    return sample_of(rows, keys, weight)


@functools.partial(jax.jit, static_argnames="spec")
def _view_sample(
    coarse: CoarseBody, batch: poses.PoseRows, base: Array, spec: views.ViewSpec
) -> Sample:
    """A sample of simulated views."""
    return _sample(views.make_views(coarse.body, batch.pose, batch.number, base, spec))
