"""Reading a body or a hand from a file: SMPL's or MANO's .pkl and .npz, or another in that form."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from smpl_jax.blocks import make_blocks
from smpl_jax.keypoints import MANO16, MANO_VERTEX_IDS, SMPL24, SMPL_VERTEX_IDS, SMPLH52
from smpl_jax.model import SmplModel
from smpl_jax.safe_npz import npz_members, read_member
from smpl_jax.safe_pickle import UnsafePickle, brief, dense, load_smpl_pickle

_KEYS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
_NAMES = ("joint_names", "vertex_ids_names", "vertex_ids")  # of free bodies
_MODELS = {  # by number of joints
    5: "a head of FLAME",
    16: "a hand of MANO",
    24: "a body of SMPL",
    52: "a body of SMPL-H",
    55: "a body of SMPL-X",
}
_OTHER_FILES = {
    b"\x1f\x8b": "a compressed file (gzip): unpack it",
    b"BZh": "a compressed file (bzip2): unpack it",
    b"\xfd7zXZ": "a compressed file (xz): unpack it",
    b"7z\xbc\xaf": "an archive (7z): unpack it",
    b"Rar!": "an archive (rar): unpack it",
    b"\x93NUMPY": "a single array (.npy)",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with `git lfs pull`",
}


@dataclass(frozen=True)
class _Kind:
    """What a file should hold.

    Attributes:
      title: the name of the model, for messages.
      noun: what it is a model of.
      names: of its joints.
      mesh: the number of vertices of the official mesh.
      vertex_ids: named vertices of the official mesh.
      address: where its files are published.
    """

    title: str
    noun: str
    names: tuple[str, ...]
    mesh: int
    vertex_ids: Mapping[str, int]
    address: str

    @property
    def where(self) -> str:
        """The end of every message: where to get a file."""
        return f"{self.title}'s files come from {self.address} (registration needed)"


_SMPL = _Kind("SMPL", "body", SMPL24, 6890, SMPL_VERTEX_IDS, "https://smpl.is.tue.mpg.de")
_MANO = _Kind("MANO", "hand", MANO16, 778, MANO_VERTEX_IDS, "https://mano.is.tue.mpg.de")
_SMPLH = _Kind("SMPL-H", "body", SMPLH52, 6890, SMPL_VERTEX_IDS, "https://mano.is.tue.mpg.de")
_KINDS = {len(kind.names): kind for kind in (_SMPL, _MANO, _SMPLH)}


def load(path: str | Path, num_betas: int = 10, joints: int = 24) -> SmplModel:
    """Read a body, or a hand.

    Args:
      path: an official SMPL .pkl (as released: a Python 2 pickle with chumpy and scipy objects,
        neither of which is needed here), an official .npz, an .npz of the content of a .pkl, or an
        .npz of another body with the same keys. Pickles, and objects in an .npz, are read by an
        unpickler that only builds arrays.
      num_betas: number of shape directions of the model. Official files hold 10 or 300; further
        ones are left out, and missing ones are zero.
      joints: 24 for a body with SMPL's joints, 16 for a hand with MANO's (MANO_RIGHT.pkl as
        released, or an .npz with the same keys), 52 for a body with SMPL-H's joints (SMPLH_MALE.pkl
        as released, or an .npz with the same keys). A file of another kind is refused.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not the body or hand that `joints` asks for, or a pickle that requests anything
        but arrays. The message has the problem and the address at which SMPL or MANO is published.
    """
    kind = _kind(joints)
    return _build(Path(path), read_tables(path, (*_KEYS, *_NAMES), joints), num_betas, kind)


def read_tables(path: str | Path, keys: Sequence[str], joints: int = 24) -> dict[str, np.ndarray]:
    """Read arrays of a body's or a hand's file by their keys, such as MANO's "hands_mean".

    Args:
      path: as in `load`.
      keys: those that the file lacks are left out of the result.
      joints: as in `load`; it only decides which model the messages name.

    Raises:
      FileNotFoundError, ValueError: as `load`, for a file that is none of arrays.
    """
    path, kind = Path(path), _kind(joints)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {kind.noun} file; {kind.where}")
    read = _read_npz if zipfile.is_zipfile(path) else _read_pickle
    return read(path, keys, kind)


def _kind(joints: int) -> _Kind:
    if joints not in _KINDS:
        choices = "24 for a body or 16 for a hand, 52 for a body with fingers"
        raise ValueError(f"joints is {joints}: give {choices}")
    return _KINDS[joints]


def _read_npz(path: Path, keys: Sequence[str], kind: _Kind) -> dict[str, np.ndarray]:
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = npz_members(archive)
            inside = [name for name in members if name.endswith((".pkl", ".npz"))]
            for key in keys:
                if key in members:
                    arrays[key] = _table(read_member(archive, members[key]))
    except UnsafePickle as error:
        raise ValueError(f"{path}: refused: {error}; {kind.where}") from error
    except Exception as error:  # a damaged archive raises zlib.error, MemoryError, ...
        raise ValueError(
            f"{path}: not a readable .npz of arrays ({brief(error)}); {kind.where}"
        ) from error
    if not arrays and inside:
        remedy = f"unpack it, and give the {kind.noun}'s file, such as {inside[0]}"
        raise ValueError(f"{path}: is an archive: {remedy}; {kind.where}")
    return arrays


def _table(array: np.ndarray) -> np.ndarray:
    """The array, or the sparse matrix in it: an array without axes that holds one dictionary."""
    content = array[()] if array.dtype.kind == "O" and array.ndim == 0 else None
    return dense(content) if isinstance(content, dict) else array


def _read_pickle(path: Path, keys: Sequence[str], kind: _Kind) -> dict[str, np.ndarray]:
    try:
        data = path.read_bytes()
        _check_format(path, data, kind)
        return load_smpl_pickle(data, [key for key in keys if key not in _NAMES])
    except UnsafePickle as error:
        raise ValueError(f"{path}: refused: {error}; {kind.where}") from error
    except OSError as error:
        problem = f"cannot be read ({error.strerror}); check its permissions"
        raise ValueError(f"{path}: {problem}") from error


def _check_format(path: Path, data: bytes, kind: _Kind) -> None:
    """Raise ValueError for a file whose first bytes are not those of a pickle."""
    if not data:
        raise ValueError(f"{path}: is empty: download it again; {kind.where}")
    start = data[:1000].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        problem = f"is a web page, not {kind.title}'s file"
        raise ValueError(f"{path}: {problem}: log in and download it again")
    if data[257:262] == b"ustar":
        remedy = f"unpack it, and give the {kind.noun}'s file in it"
        raise ValueError(f"{path}: is an archive (tar): {remedy}; {kind.where}")
    for magic, what in _OTHER_FILES.items():
        if data.startswith(magic):
            raise ValueError(f"{path}: is not a {kind.noun} but {what}; {kind.where}")


def _malformed(path: Path, problem: str, kind: _Kind) -> ValueError:
    article = "a" if kind is _MANO else "an"
    return ValueError(f"{path}: not {article} {kind.title} {kind.noun}, {problem}; {kind.where}")


def _build(path: Path, arrays: Mapping[str, np.ndarray], num_betas: int, kind: _Kind) -> SmplModel:
    """The model of checked arrays. Raises ValueError, see `load`."""
    # 1. Check that the tables are complete and have the model's shapes.
    missing = [key for key in _KEYS if key not in arrays]
    if missing:
        raise _malformed(path, f"it lacks {', '.join(missing)}", kind)
    try:
        # The largest table is not needed in full precision.
        precision = lambda key: np.float32 if key == "posedirs" else np.float64
        tables = {key: np.asarray(arrays[key], precision(key)) for key in _KEYS[:5]}
        vertices, joints = _counts(tables)
    except (TypeError, ValueError) as error:
        problem = f"v_template or weights is no table of numbers ({brief(error)})"
        raise _malformed(path, problem, kind) from error
    tables["kintree_table"] = _whole_numbers(path, "kintree_table", arrays, kind)
    faces = _whole_numbers(path, "f", arrays, kind)
    if tables["posedirs"].shape == (9 * (joints - 1), 3 * vertices):  # the layout of PyPI's smplx
        tables["posedirs"] = tables["posedirs"].T.reshape(vertices, 3, -1)
    _check_tables(path, tables, kind)
    # 2. Check that the joints are the model's, and that the numbers are finite.
    names = tuple(map(str, np.atleast_1d(arrays.get("joint_names", kind.names))))
    if joints != len(kind.names) or names != kind.names:
        others = "(SMPL-X is not supported)"
        problem = f"its joints are not {kind.title}'s {len(kind.names)} {others}"
        raise ValueError(f"{path}: {problem}; {kind.where}")
    template, shapedirs, posedirs, regressor, weights = (tables[key] for key in _KEYS[:5])
    if not all(np.all(np.isfinite(tables[key])) for key in _KEYS[:5]):
        raise ValueError(f"{path}: holds numbers that are not finite; {kind.where}")
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
            blocks=make_blocks(directions.transpose(2, 1, 0), weights.T),
            joint_template=to_jax(regressor @ template),
            joint_shapedirs=to_jax(np.einsum("jv,vcs->sjc", regressor, shapedirs)),
            faces=jax.device_put(_faces(path, faces, vertices, kind).astype(np.int32)),
            parents=_parents(path, tables["kintree_table"], kind),
            joint_names=kind.names,
            named_vertices=_named_vertices(path, arrays, vertices, kind),
        )


def _counts(tables: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Numbers of vertices and joints. Raises ValueError for arrays that are no tables."""
    (vertices, _), (_, joints) = tables["v_template"].shape, tables["weights"].shape
    return vertices, joints


def _check_tables(path: Path, tables: Mapping[str, np.ndarray], kind: _Kind) -> None:
    """Raise ValueError for tables of a wrong shape, or of a model with other joints."""
    vertices, joints = _counts(tables)
    shapedirs, counts = tables["shapedirs"], tables["J_regressor"].shape[:1]
    wanted = len(kind.names)
    if joints != wanted and counts == tables["kintree_table"].shape[-1:] == (joints,):
        problem = f"is {_MODELS.get(joints, 'another body')} ({joints} joints)"
        remedy = f"but {kind.title} ({wanted} joints) is needed"
        raise ValueError(f"{path}: {problem}, {remedy}; {kind.where}")
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
            problem = f"{key} has shape {tables[key].shape} instead of {shape}"
            raise _malformed(path, problem, kind)


def _whole_numbers(
    path: Path, key: str, arrays: Mapping[str, np.ndarray], kind: _Kind
) -> np.ndarray:
    """The array of a key as int64; whole numbers may be stored in any numeric type."""
    array = np.asarray(arrays[key])
    if array.dtype.kind not in "iufb" or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise _malformed(path, f"{key} is no table of whole numbers", kind)
    return array.astype(np.int64)


def _faces(path: Path, faces: np.ndarray, vertices: int, kind: _Kind) -> np.ndarray:
    is_list = faces.ndim == 2 and faces.shape[1] == 3 and faces.size > 0
    if not is_list or faces.min() < 0 or faces.max() >= vertices:
        raise _malformed(path, f"f is no list of triangles of its {vertices} vertices", kind)
    return faces


def _parents(path: Path, kintree_table: np.ndarray, kind: _Kind) -> tuple[int, ...]:
    parents = kintree_table[0].tolist()
    parents[0] = -1  # stored as -1 or as 2^32 - 1
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents[1:], start=1)):
        raise _malformed(path, "in kintree_table a parent does not come before its child", kind)
    return tuple(parents)


def _named_vertices(
    path: Path, arrays: Mapping[str, np.ndarray], vertices: int, kind: _Kind
) -> tuple[tuple[str, int], ...]:
    if "vertex_ids" in arrays and "vertex_ids_names" in arrays:
        names = arrays["vertex_ids_names"]
        indices = _whole_numbers(path, "vertex_ids", arrays, kind)
        if names.ndim != 1 or names.shape != indices.shape:
            problem = "vertex_ids_names and vertex_ids are not of one length"
            raise ValueError(f"{path}: {problem}; {kind.where}")
        named = tuple(zip(map(str, names.tolist()), indices.tolist(), strict=True))
    else:
        named = tuple(kind.vertex_ids.items()) if vertices == kind.mesh else ()
    if any(not 0 <= index < vertices for _, index in named):
        raise ValueError(
            f"{path}: vertex_ids point outside of its {vertices} vertices; {kind.where}"
        )
    return named
