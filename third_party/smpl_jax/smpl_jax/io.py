"""Reading a body from a file: SMPL's own .pkl and .npz, or a free body in the same form."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from smpl_jax.keypoints import SMPL24, SMPL_VERTEX_IDS
from smpl_jax.model import SmplModel
from smpl_jax.safe_npz import read_npy
from smpl_jax.safe_pickle import UnsafePickle, dense, load_smpl_pickle

_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_NAMES = ("joint_names", "vertex_ids_names", "vertex_ids")  # of free bodies
_SMPL_VERTICES = 6890
_WHERE = "SMPL's files come from https://smpl.is.tue.mpg.de (registration needed)"
_OTHER_BODIES = {5: "FLAME", 16: "MANO", 52: "SMPL-H", 55: "SMPL-X"}  # by number of joints
_OTHER_FILES = {
    b"\x1f\x8b": "a compressed file (gzip): unpack it",
    b"BZh": "a compressed file (bzip2): unpack it",
    b"\xfd7zXZ": "a compressed file (xz): unpack it",
    b"7z\xbc\xaf": "an archive (7z): unpack it",
    b"Rar!": "an archive (rar): unpack it",
    b"\x93NUMPY": "a single array (.npy)",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
}


def load(path: str | Path, num_betas: int = 10) -> SmplModel:
    """Reads a body.

    Args:
      path: an official SMPL .pkl (as released: Python 2 pickles with chumpy and scipy objects in
        it, neither of which is needed here), an official .npz, an .npz of all that was in a .pkl,
        or an .npz of another body with the same keys. Pickles, and objects in an .npz, are read by
        an unpickler that builds arrays and nothing else.
      num_betas: how many shape directions the model has. Official files hold 10 or 300; further
        ones are left out, and where a file holds fewer the rest is zero.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an SMPL body, or a pickle that asks for anything but arrays. The message says
        what is wrong and where to get the file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such body file; {_WHERE}")
    arrays = _read_npz(path) if zipfile.is_zipfile(path) else _read_pickle(path)
    return _build(path, arrays, num_betas)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            inside = [name for name in members if name.endswith((".pkl", ".npz"))]
            for key in (*_KEYS, *_NAMES):
                if key in members:
                    with archive.open(members[key]) as file:
                        arrays[key] = _table(read_npy(file, members[key].file_size))
    except UnsafePickle as error:
        raise ValueError(f"{path}: refused: {error}; {_WHERE}") from error
    except (
        Exception
    ) as error:  # a damaged archive can raise nearly anything, zlib.error and MemoryError among it
        raise ValueError(f"{path}: not a readable .npz of arrays ({error}); {_WHERE}") from error
    if not arrays and inside:
        remedy = f"unpack it, and give the body's file, such as {inside[0]}"
        raise ValueError(f"{path}: is an archive: {remedy}; {_WHERE}")
    return arrays


def _table(array: np.ndarray) -> np.ndarray:
    """The array, or the matrix whose parts it holds: an array of one dictionary, without axes."""
    content = array[()] if array.dtype.kind == "O" and array.ndim == 0 else None
    return dense(content) if isinstance(content, dict) else array


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    try:
        data = path.read_bytes()
        _check_kind(path, data)
        return load_smpl_pickle(data, _KEYS)
    except UnsafePickle as error:
        raise ValueError(f"{path}: refused: {error}; {_WHERE}") from error
    except OSError as error:
        raise ValueError(
            f"{path}: cannot be read ({error.strerror}); check its permissions"
        ) from error


def _check_kind(path: Path, data: bytes) -> None:
    """Raises ValueError for a file that its first bytes show to be no pickle."""
    if not data:
        raise ValueError(f"{path}: is empty: download it again; {_WHERE}")
    start = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise ValueError(f"{path}: is a web page, not SMPL's file: log in and download it again")
    if data[257:262] == b"ustar":
        remedy = "unpack it, and give the body's file in it"
        raise ValueError(f"{path}: is an archive (tar): {remedy}; {_WHERE}")
    for magic, what in _OTHER_FILES.items():
        if data.startswith(magic):
            raise ValueError(f"{path}: is no body but {what}; {_WHERE}")


def _build(path: Path, arrays: Mapping[str, np.ndarray], num_betas: int) -> SmplModel:
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{path}: not an SMPL body, it lacks {', '.join(missing)}; {_WHERE}")
    try:
        template, shapedirs, posedirs, regressor, weights = (
            np.asarray(arrays[key], np.float64) for key in _KEYS[:5]
        )
        (vertices, _), (_, joints) = template.shape, weights.shape
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: not an SMPL body, v_template or weights is no table of numbers ({error}); {_WHERE}"
        ) from error
    kintree, faces = (_whole_numbers(path, key, arrays[key]) for key in ("kintree_table", "f"))
    if posedirs.shape == (9 * (joints - 1), 3 * vertices):  # as PyPI's smplx keeps them
        posedirs = posedirs.T.reshape(vertices, 3, -1)
    found = {
        "v_template": template,
        "shapedirs": shapedirs,
        "posedirs": posedirs,
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": kintree,
    }
    if joints != len(SMPL24) and regressor.shape[:1] == kintree.shape[-1:] == (joints,):
        other = f"a body of {_OTHER_BODIES[joints]}" if joints in _OTHER_BODIES else "another body"
        wanted = f"SMPL ({len(SMPL24)} joints) is wanted"
        raise ValueError(f"{path}: is {other} ({joints} joints), and {wanted}; {_WHERE}")
    expected = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, shapedirs.shape[-1] if shapedirs.ndim else 0),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
    }
    for key, shape in expected.items():
        if found[key].shape != shape:
            problem = f"{key} has shape {found[key].shape} instead of {shape}"
            raise ValueError(f"{path}: not an SMPL body, {problem}; {_WHERE}")
    if joints != len(SMPL24) or tuple(map(str, arrays.get("joint_names", SMPL24))) != SMPL24:
        raise ValueError(
            f"{path}: its joints are not SMPL's {len(SMPL24)} (SMPL-H, SMPL-X and MANO are not read); {_WHERE}"
        )
    if not all(
        np.all(np.isfinite(array)) for array in (template, shapedirs, posedirs, regressor, weights)
    ):
        raise ValueError(f"{path}: holds numbers that are not finite; {_WHERE}")
    shapedirs = shapedirs[..., :num_betas]
    shapedirs = np.pad(shapedirs, ((0, 0), (0, 0), (0, num_betas - shapedirs.shape[-1])))
    directions = np.concatenate([shapedirs, posedirs], axis=-1)
    with (
        jax.ensure_compile_time_eval()
    ):  # so that a body loaded inside `jit` still holds arrays, not tracers
        to_jax = lambda array: jnp.asarray(np.ascontiguousarray(array), jnp.float32)
        return SmplModel(
            template=to_jax(template.T),
            directions=to_jax(directions.transpose(2, 1, 0)),
            weights=to_jax(weights.T),
            joint_template=to_jax(regressor @ template),
            joint_shapedirs=to_jax(np.einsum("jv,vcs->sjc", regressor, shapedirs)),
            faces=jnp.asarray(_faces(path, faces, vertices), jnp.int32),
            parents=_parents(path, kintree),
            joint_names=SMPL24,
            named_vertices=_named_vertices(path, arrays, vertices),
        )


def _whole_numbers(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """The array as int64; numbers of any type may stand for whole ones."""
    array = np.asarray(array)
    if array.dtype.kind not in "iufb" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise ValueError(f"{path}: not an SMPL body, {key} is no table of whole numbers; {_WHERE}")
    return array.astype(np.int64)


def _faces(path: Path, faces: np.ndarray, vertices: int) -> np.ndarray:
    if (
        faces.ndim != 2
        or faces.shape[1] != 3
        or faces.size == 0
        or faces.min() < 0
        or faces.max() >= vertices
    ):
        raise ValueError(
            f"{path}: not an SMPL body, f is no list of triangles of its {vertices} vertices; {_WHERE}"
        )
    return faces


def _parents(path: Path, kintree_table: np.ndarray) -> tuple[int, ...]:
    parents = kintree_table[0].tolist()
    parents[0] = -1  # stored as -1 or as 2^32 - 1
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        raise ValueError(
            f"{path}: not an SMPL body, in kintree_table a parent does not come before its child; {_WHERE}"
        )
    return tuple(parents)


def _named_vertices(
    path: Path, arrays: Mapping[str, np.ndarray], vertices: int
) -> tuple[tuple[str, int], ...]:
    if "vertex_ids" in arrays and "vertex_ids_names" in arrays:
        names = arrays["vertex_ids_names"]
        indices = _whole_numbers(path, "vertex_ids", arrays["vertex_ids"])
        if names.ndim != 1 or names.shape != indices.shape:
            problem = "vertex_ids_names and vertex_ids are not of one length"
            raise ValueError(f"{path}: {problem}; {_WHERE}")
        named = tuple(zip(map(str, names.tolist()), indices.tolist(), strict=True))
    else:
        named = tuple(SMPL_VERTEX_IDS.items()) if vertices == _SMPL_VERTICES else ()
    if any(not 0 <= index < vertices for _, index in named):
        raise ValueError(f"{path}: vertex_ids point outside of its {vertices} vertices; {_WHERE}")
    return named
