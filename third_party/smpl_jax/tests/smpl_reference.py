"""References for the tests: SMPL in plain float64 NumPy, random bodies, and Python 2 pickles."""

import struct
from pathlib import Path

import numpy as np
from smpl_jax.keypoints import SMPL24_PARENTS

FREE_BODY = Path(__file__).resolve().parents[3] / "genhmr_jax/assets/body/neutral.npz"


def random_body(vertices: int = 6890, betas: int = 10, seed: int = 0) -> dict[str, np.ndarray]:
    """Random arrays of SMPL's shapes, with four weights a vertex and a sparse joint regressor."""
    rng = np.random.default_rng(seed)
    weights, regressor = np.zeros((vertices, 24)), np.zeros((24, vertices))
    for row in weights:
        row[rng.choice(24, 4, replace=False)] = rng.dirichlet(np.ones(4))
    for row in regressor:
        row[rng.choice(vertices, 8, replace=False)] = rng.dirichlet(np.ones(8))
    parents = np.array(SMPL24_PARENTS)
    return {
        "v_template": rng.normal(0, 0.5, (vertices, 3)),
        "shapedirs": rng.normal(0, 0.02, (vertices, 3, betas)),
        "posedirs": rng.normal(0, 0.002, (vertices, 3, 207)),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.stack(
            [np.where(parents < 0, 2**32 - 1, parents), np.arange(24)]
        ).astype(np.uint32),
        "f": rng.integers(0, vertices, (2 * vertices - 4, 3)).astype(np.uint32),
    }


def rodrigues(vector: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vector)
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def reference_forward(
    body: dict[str, np.ndarray], betas: np.ndarray, rotmats: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and joints of one body as in the SMPL paper: 4x4 matrices, loops, float64."""
    arrays = {
        key: np.asarray(body[key], np.float64)
        for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    }
    shaped = arrays["v_template"] + arrays["shapedirs"][..., : len(betas)] @ betas
    joints = arrays["J_regressor"] @ shaped
    rest = shaped + arrays["posedirs"] @ (rotmats[1:] - np.eye(3)).reshape(-1)
    world = []
    for joint, parent in enumerate(SMPL24_PARENTS):
        local = np.eye(4)
        local[:3, :3] = rotmats[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    vertices = np.zeros_like(rest)
    for joint in range(24):
        to_rest = np.eye(4)
        to_rest[:3, 3] = -joints[joint]
        motion = world[joint] @ to_rest
        vertices += arrays["weights"][:, joint : joint + 1] * (
            rest @ motion[:3, :3].T + motion[:3, 3]
        )
    return vertices, np.array([matrix[:3, 3] for matrix in world])


class Global:
    """module.name, for the GLOBAL opcode."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Made:
    """An object: constructor(*arguments), then its state."""

    def __init__(
        self, constructor: Global, arguments: tuple, state: object = None, new: bool = False
    ) -> None:
        self.constructor, self.arguments, self.state, self.new = constructor, arguments, state, new


def python2_array(array: np.ndarray) -> Made:
    """An array as Python 2's numpy pickled it."""
    dtype = Made(
        Global("numpy", "dtype"), (array.dtype.str[1:], 0, 1), (3, "<", None, None, None, -1, -1, 0)
    )
    fresh = (Global("numpy", "ndarray"), (0,), "b")
    return Made(
        Global("numpy.core.multiarray", "_reconstruct"),
        fresh,
        (1, array.shape, dtype, False, array.tobytes()),
    )


def python2_chumpy(name: str, state: dict) -> Made:
    """A chumpy object as Python 2 pickled it: no arguments, its attributes as state."""
    return Made(Global(*name.rsplit(".", 1)), (), state, new=True)


def python2_csc(dense: np.ndarray) -> Made:
    """A scipy csc_matrix as Python 2 pickled it."""
    columns, rows = np.nonzero(dense.T)
    state = {
        "_shape": dense.shape,
        "data": python2_array(dense.T[columns, rows]),
        "indices": python2_array(rows.astype(np.int32)),
        "indptr": python2_array(
            np.searchsorted(columns, np.arange(dense.shape[1] + 1)).astype(np.int32)
        ),
        "format": "csc",
        "maxprint": 50,
    }
    empty = (Global("scipy.sparse.csc", "csc_matrix"), Global("__builtin__", "object"), None)
    return Made(Global("copy_reg", "_reconstructor"), empty, state)


def python2_pickle(content: object) -> bytes:
    """A pickle of protocol 2 with Python 2's byte strings, which Python 3 cannot write."""
    return b"\x80\x02" + _opcodes(content) + b"."


def _opcodes(item: object) -> bytes:
    if item is None or isinstance(item, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[item]
    if isinstance(item, int):
        return b"J" + struct.pack("<i", item)
    if isinstance(item, str | bytes):
        raw = item.encode("latin1") if isinstance(item, str) else item
        return b"T" + struct.pack("<i", len(raw)) + raw
    if isinstance(item, tuple):
        return b"(" + b"".join(map(_opcodes, item)) + b"t"
    if isinstance(item, dict):
        return (
            b"}(" + b"".join(_opcodes(key) + _opcodes(value) for key, value in item.items()) + b"u"
        )
    if isinstance(item, Global):
        return f"c{item.module}\n{item.name}\n".encode()
    if isinstance(item, Made):
        made = (
            _opcodes(item.constructor) + _opcodes(item.arguments) + (b"\x81" if item.new else b"R")
        )
        return made if item.state is None else made + _opcodes(item.state) + b"b"
    raise TypeError(type(item))
