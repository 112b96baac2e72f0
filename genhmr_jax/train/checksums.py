"""Checksums of a training state and of small JSON items.

The file formats below a checkpoint do not detect damaged array data: a flipped bit in compressed
float32 numbers gives other numbers. Here the numbers themselves are summed on the devices, before
the save and after the restore.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt32

from genhmr_jax.train.mesh import path_name

SEAL = "sha256"


def of_state(state: Any) -> dict[str, list[int]]:
    """Two checksums of each array by its name; equal on any mesh and any number of processes.

    All processes must call this function.

    Args:
      state: arrays on the devices, of real numbers or booleans.
    """
    leaves = jax.tree_util.tree_leaves_with_path(state)
    names = [path_name(path) for path, _ in leaves]
    # On several CPU devices, programs that are under way at once can wait for each other for ever.
    waits = jax.default_backend() == "cpu" and jax.device_count() > 1
    finish = jax.block_until_ready if waits else lambda pair: pair
    with jax.transfer_guard("allow"):
        sums = jax.device_get([finish(_sums(array)) for _, array in leaves])
    return {name: np.asarray(pair).tolist() for name, pair in zip(names, sums, strict=True)}


@jax.jit
def _sums(array: Array) -> UInt32[Array, "2"]:
    """Two sums of an array's words, modulo 2^32.

    The words are multiplied by odd numbers that differ between places, so that each change of a
    single word, and thus of a bit, changes both sums. Sums of integers do not depend on their
    order.
    """
    words = _words(array)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    # Odd constants of Knuth's multiplicative hash and of MurmurHash3 mix the places.
    factors = (2 * place + 1, (place * np.uint32(2654435761) ^ np.uint32(0x85EBCA6B)) | 1)
    return jnp.stack([jnp.sum(words * factor, dtype=jnp.uint32) for factor in factors])


def _words(array: Array) -> UInt32[Array, "*shape"]:
    """The bits of each number as one word."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    kinds = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}
    return jax.lax.bitcast_convert_type(array, kinds[array.dtype.itemsize]).astype(jnp.uint32)


def difference(state: Any, expected: dict[str, list[int]]) -> str:
    """What differs from the `expected` checksums, with the first array that does; "" if none does.

    All processes must call this function, and get the same answer.
    """
    found = of_state(state)
    for name in sorted(found | expected):
        if found.get(name) != expected.get(name):
            return f"{name} is not as it was saved: its checksum differs"
    return ""


def sealed(item: dict[str, Any]) -> dict[str, Any]:
    """The JSON item with a hash of itself."""
    return item | {SEAL: _digest(item)}


def unsealed(item: dict[str, Any]) -> dict[str, Any]:
    """The item of `sealed`. Raises ValueError if it is not as it was written."""
    rest = {name: value for name, value in item.items() if name != SEAL}
    if item.get(SEAL) != _digest(rest):
        raise ValueError("its JSON is not as it was saved: the hash differs")
    return rest


def _digest(item: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(item, sort_keys=True).encode()).hexdigest()
