"""Reading a body from a file: SMPL's .pkl and .npz, or another body in the same form."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from smpl_jax import lbs
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
    """Read a body.

    Args:
      path: an official SMPL .pkl (as released: a Python 2 pickle with chumpy and scipy objects,
        neither of which is needed here), an official .npz, an .npz of the content of a .pkl, or an
        .npz of another body with the same keys. Pickles, and objects in an .npz, are read by an
        unpickler that only builds arrays.
      num_betas: number of shape directions of the model. Official files hold 10 or 300; further
        ones are left out, and missing ones are zero.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not an SMPL body, or a pickle that requests anything but arrays. The message has
        the problem and the address at which SMPL is published.
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
    except Exception as error:  # a damaged archive raises zlib.error, MemoryError, ...
        raise ValueError(f"{path}: not a readable .npz of arrays ({error}); {_WHERE}") from error
    if not arrays and inside:
        remedy = f"unpack it, and give the body's file, such as {inside[0]}"
        raise ValueError(f"{path}: is an archive: {remedy}; {_WHERE}")
    return arrays


def _table(array: np.ndarray) -> np.ndarray:
    """The array, or the sparse matrix in it: an array without axes that holds one dictionary."""
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
        problem = f"cannot be read ({error.strerror}); check its permissions"
        raise ValueError(f"{path}: {problem}") from error


def _check_kind(path: Path, data: bytes) -> None:
    """Raise ValueError for a file whose first bytes are not those of a pickle."""
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
            raise ValueError(f"{path}: is not a body but {what}; {_WHERE}")


def _not_smpl(path: Path, problem: str) -> ValueError:
    return ValueError(f"{path}: not an SMPL body, {problem}; {_WHERE}")


def _build(path: Path, arrays: Mapping[str, np.ndarray], num_betas: int) -> SmplModel:
    """The model of checked arrays. Raises ValueError, see `load`."""
    # 1. Check that the tables are complete and have SMPL's shapes.
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise _not_smpl(path, f"it lacks {', '.join(missing)}")
    try:
        # The largest table is not needed in full precision.
        kind = lambda key: np.float32 if key == "posedirs" else np.float64
        tables = {key: np.asarray(arrays[key], kind(key)) for key in _KEYS[:5]}
        vertices, joints = _counts(tables)
    except (TypeError, ValueError) as error:
        raise _not_smpl(path, f"v_template or weights is no table of numbers ({error})") from error
    tables["kintree_table"] = _whole_numbers(path, "kintree_table", arrays["kintree_table"])
    faces = _whole_numbers(path, "f", arrays["f"])
    if tables["posedirs"].shape == (9 * (joints - 1), 3 * vertices):  # the layout of PyPI's smplx
        tables["posedirs"] = tables["posedirs"].T.reshape(vertices, 3, -1)
    _check_tables(path, tables)
    # 2. Check that the joints are SMPL's, and that the numbers are finite.
    if joints != len(SMPL24) or tuple(map(str, arrays.get("joint_names", SMPL24))) != SMPL24:
        others = "(SMPL-H, SMPL-X and MANO are not supported)"
        raise ValueError(f"{path}: its joints are not SMPL's {len(SMPL24)} {others}; {_WHERE}")
    template, shapedirs, posedirs, regressor, weights = (tables[key] for key in _KEYS[:5])
    if not all(np.all(np.isfinite(tables[key])) for key in _KEYS[:5]):
        raise ValueError(f"{path}: holds numbers that are not finite; {_WHERE}")
    # 3. Convert to the layout of the model.
    shapedirs = shapedirs[..., :num_betas]
    shapedirs = np.pad(shapedirs, ((0, 0), (0, 0), (0, num_betas - shapedirs.shape[-1])))
    directions = np.concatenate([shapedirs.astype(np.float32), posedirs], axis=-1)
    # Converted by NumPy: jnp would compile a program for each shape.
    to_jax = lambda array: jax.device_put(np.ascontiguousarray(array, np.float32))
    # Concrete arrays, even if a body is loaded inside a jitted function.
    with jax.ensure_compile_time_eval():
        return SmplModel(
            template=to_jax(template.T),
            blocks=lbs.make_blocks(directions.transpose(2, 1, 0), weights.T),
            joint_template=to_jax(regressor @ template),
            joint_shapedirs=to_jax(np.einsum("jv,vcs->sjc", regressor, shapedirs)),
            faces=jax.device_put(_faces(path, faces, vertices).astype(np.int32)),
            parents=_parents(path, tables["kintree_table"]),
            joint_names=SMPL24,
            named_vertices=_named_vertices(path, arrays, vertices),
        )


def _counts(tables: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Numbers of vertices and joints. Raises ValueError for arrays that are no tables."""
    (vertices, _), (_, joints) = tables["v_template"].shape, tables["weights"].shape
    return vertices, joints


def _check_tables(path: Path, tables: Mapping[str, np.ndarray]) -> None:
    """Raise ValueError for tables of a wrong shape, or of a body with other joints."""
    vertices, joints = _counts(tables)
    shapedirs, counts = tables["shapedirs"], tables["J_regressor"].shape[:1]
    if joints != len(SMPL24) and counts == tables["kintree_table"].shape[-1:] == (joints,):
        other = f"a body of {_OTHER_BODIES[joints]}" if joints in _OTHER_BODIES else "another body"
        wanted = f"SMPL ({len(SMPL24)} joints) is needed"
        raise ValueError(f"{path}: is {other} ({joints} joints), but {wanted}; {_WHERE}")
    expected = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, shapedirs.shape[-1] if shapedirs.ndim else 0),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
    }
    for key, shape in expected.items():
        if tables[key].shape != shape:
            raise _not_smpl(path, f"{key} has shape {tables[key].shape} instead of {shape}")


def _whole_numbers(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """The array as int64; whole numbers may be stored in any numeric type."""
    array = np.asarray(array)
    if array.dtype.kind not in "iufb" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise _not_smpl(path, f"{key} is no table of whole numbers")
    return array.astype(np.int64)


def _faces(path: Path, faces: np.ndarray, vertices: int) -> np.ndarray:
    is_list = faces.ndim == 2 and faces.shape[1] == 3 and faces.size > 0
    if not is_list or faces.min() < 0 or faces.max() >= vertices:
        raise _not_smpl(path, f"f is no list of triangles of its {vertices} vertices")
    return faces


def _parents(path: Path, kintree_table: np.ndarray) -> tuple[int, ...]:
    parents = kintree_table[0].tolist()
    parents[0] = -1  # stored as -1 or as 2^32 - 1
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        raise _not_smpl(path, "in kintree_table a parent does not come before its child")
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
