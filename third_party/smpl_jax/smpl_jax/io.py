"""Reading a body from a file: SMPL's own .pkl and .npz, or a free body in the same form."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smpl_jax.keypoints import SMPL24, SMPL_VERTEX_IDS
from smpl_jax.model import SmplModel
from smpl_jax.safe_pickle import UnsafePickle, load_smpl_pickle

_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_SMPL_VERTICES = 6890
_WHERE = "SMPL's files come from https://smpl.is.tue.mpg.de (registration needed)"


def load(path: str | Path, num_betas: int = 10) -> SmplModel:
    """Reads a body.

    Args:
      path: an official SMPL .pkl (as released: Python 2 pickles with chumpy and scipy objects in it, neither of which is needed here), an
        official .npz, or an .npz of another body with the same keys. Pickles are read by an unpickler that builds arrays and nothing else.
      num_betas: how many shape directions to keep; the newer files hold 300.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an SMPL body, or a pickle that asks for anything but arrays. The message says what is wrong and where to get the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such body file; {_WHERE}")
    arrays = _read_npz(path) if zipfile.is_zipfile(path) else _read_pickle(path)
    return _build(path, arrays, num_betas)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = [key for key in (*_KEYS, "joint_names", "vertex_ids_names", "vertex_ids") if key in file.files]
            return {key: file[key] for key in wanted}
    except Exception as error:  # a damaged archive can raise nearly anything, zlib.error and MemoryError among it
        raise ValueError(f"{path}: not a readable .npz of plain arrays ({error}); {_WHERE}") from error


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_smpl_pickle(path.read_bytes(), _KEYS)
    except UnsafePickle as error:
        raise ValueError(f"{path}: refused: {error}; {_WHERE}") from error
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _build(path: Path, arrays: Mapping[str, np.ndarray], num_betas: int) -> SmplModel:
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{path}: not an SMPL body, it lacks {', '.join(missing)}; {_WHERE}")
    try:
        template, shapedirs, posedirs, regressor, weights = (np.asarray(arrays[key], np.float64) for key in _KEYS[:5])
        (vertices, _), (_, joints) = template.shape, weights.shape
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: not an SMPL body, v_template or weights is no table of numbers ({error}); {_WHERE}") from error
    expected = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, shapedirs.shape[-1] if shapedirs.ndim else 0),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
    }
    for key, shape in expected.items():
        if np.shape(arrays[key]) != shape:
            raise ValueError(f"{path}: not an SMPL body, {key} has shape {np.shape(arrays[key])} instead of {shape}; {_WHERE}")
    if joints != len(SMPL24) or tuple(map(str, arrays.get("joint_names", SMPL24))) != SMPL24:
        raise ValueError(f"{path}: its joints are not SMPL's {len(SMPL24)} (SMPL-H, SMPL-X and MANO are not read); {_WHERE}")
    if not all(np.all(np.isfinite(array)) for array in (template, shapedirs, posedirs, regressor, weights)):
        raise ValueError(f"{path}: holds numbers that are not finite; {_WHERE}")
    directions = np.concatenate([shapedirs[..., :num_betas], posedirs], axis=-1)
    with jax.ensure_compile_time_eval():  # so that a body loaded inside `jit` still holds arrays, not tracers
        to_jax = lambda array: jnp.asarray(np.ascontiguousarray(array), jnp.float32)  # noqa: E731
        return SmplModel(
            template=to_jax(template.T),
            directions=to_jax(directions.transpose(2, 1, 0)),
            weights=to_jax(weights.T),
            joint_template=to_jax(regressor @ template),
            joint_shapedirs=to_jax(np.einsum("jv,vcs->sjc", regressor, shapedirs[..., :num_betas])),
            faces=jnp.asarray(_faces(path, arrays["f"], vertices), jnp.int32),
            parents=_parents(path, arrays["kintree_table"]),
            joint_names=SMPL24,
            named_vertices=_named_vertices(path, arrays, vertices),
        )


def _faces(path: Path, faces: np.ndarray, vertices: int) -> np.ndarray:
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.size == 0 or faces.min() < 0 or faces.max() >= vertices:
        raise ValueError(f"{path}: not an SMPL body, f is no list of triangles of its {vertices} vertices; {_WHERE}")
    return faces.astype(np.int64)


def _parents(path: Path, kintree_table: np.ndarray) -> tuple[int, ...]:
    parents = kintree_table[0].astype(np.int64).tolist()
    parents[0] = -1  # stored as -1 or as 2^32 - 1
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        raise ValueError(f"{path}: not an SMPL body, in kintree_table a parent does not come before its child; {_WHERE}")
    return tuple(parents)


def _named_vertices(path: Path, arrays: Mapping[str, np.ndarray], vertices: int) -> tuple[tuple[str, int], ...]:
    if "vertex_ids" in arrays and "vertex_ids_names" in arrays:
        pairs = zip(arrays["vertex_ids_names"].tolist(), arrays["vertex_ids"].tolist(), strict=True)
        named = tuple((str(name), int(index)) for name, index in pairs)
    else:
        named = tuple(SMPL_VERTEX_IDS.items()) if vertices == _SMPL_VERTICES else ()
    if any(not 0 <= index < vertices for _, index in named):
        raise ValueError(f"{path}: vertex_ids point outside of its {vertices} vertices; {_WHERE}")
    return named
