"""SMPL files in different forms: converted, with other counts and types, or no SMPL file at all."""

import io
import pickle
import tarfile
import zipfile

import jax
import numpy as np
import pytest
import smpl_jax
from smpl_reference import random_body, reference_forward

ARRAYS = random_body(vertices=300, betas=10)
FORWARD = jax.jit(smpl_jax.forward)
sparse = pytest.importorskip("scipy.sparse")


def wrapped(item) -> np.ndarray:
    """An object that is no array, as np.savez stores it."""
    array = np.empty((), object)
    array[()] = item
    return array


def parts(matrix) -> dict:
    return {
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "shape": matrix.shape,
    }


def put(folder, suffix: str, arrays: dict):
    path = folder / f"body{suffix}"
    if suffix == ".npz":
        np.savez(
            path,
            **{
                key: value if isinstance(value, np.ndarray) else wrapped(value)
                for key, value in arrays.items()
            },
        )
    else:
        path.write_bytes(pickle.dumps(arrays))
    return path


def assert_same_body(path, arrays=ARRAYS, atol=1e-5):
    """Check that the file, posed, equals the plain NumPy implementation for the arrays."""
    rng = np.random.default_rng(3)
    betas = rng.normal(size=min(10, arrays["shapedirs"].shape[-1]))
    pose = rng.normal(0, 0.4, (24, 3)).astype(np.float32)
    model = smpl_jax.load(path)
    assert model.num_betas == 10
    found = FORWARD(
        model,
        np.pad(betas, (0, 10 - len(betas)), constant_values=7.0 if len(betas) < 10 else 0),
        pose,
    )
    vertices, joints = reference_forward(
        arrays, betas, np.asarray(smpl_jax.rotations.axis_angle_to_matrix(pose), np.float64)
    )
    np.testing.assert_allclose(found.vertices, vertices, atol=atol)
    np.testing.assert_allclose(found.joints, joints, atol=atol)
    np.testing.assert_array_equal(model.faces, arrays["f"])


J, KINTREE = ARRAYS["J_regressor"], ARRAYS["kintree_table"]
FORMS = {
    "as they are": {},
    "csc matrix": {"J_regressor": sparse.csc_matrix(J)},
    "csr matrix": {"J_regressor": sparse.csr_matrix(J)},
    "coo matrix": {"J_regressor": sparse.coo_matrix(J)},
    "csc array": {"J_regressor": sparse.csc_array(J)},
    "coo array": {"J_regressor": sparse.coo_array(J)},
    "parts of a csc matrix": {"J_regressor": parts(sparse.csc_matrix(J))},
    "parts of a csr matrix": {"J_regressor": parts(sparse.csr_matrix(J))},
    "float32": {
        key: ARRAYS[key].astype(np.float32)
        for key in ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
    },
    "Fortran order": {key: np.asfortranarray(value) for key, value in ARRAYS.items()},
    "big endian": {
        "v_template": ARRAYS["v_template"].astype(">f8"),
        "f": ARRAYS["f"].astype(">i4"),
    },
    "root as -1": {"kintree_table": np.where(KINTREE == 2**32 - 1, -1, KINTREE.astype(np.int64))},
    "int64": {"kintree_table": KINTREE.astype(np.int64), "f": ARRAYS["f"].astype(np.int64)},
    "whole numbers as floats": {
        "kintree_table": KINTREE.astype(np.float64),
        "f": ARRAYS["f"].astype(np.float32),
    },
    "posedirs as smplx keeps them": {"posedirs": ARRAYS["posedirs"].reshape(-1, 207).T},
    "more keys": {
        "bs_style": "lbs",
        "J": np.zeros((24, 3)),
        "vert_sym_idxs": np.arange(300),
        "note": {"a": [1, None]},
    },
}


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path, form, suffix):
    assert_same_body(put(tmp_path, suffix, ARRAYS | FORMS[form]))


def test_half_precision(tmp_path):
    arrays = ARRAYS | {"v_template": ARRAYS["v_template"].astype(np.float16)}
    assert_same_body(put(tmp_path, ".pkl", arrays), arrays)


def test_keys_of_bytes(tmp_path):
    assert_same_body(put(tmp_path, ".pkl", {key.encode(): value for key, value in ARRAYS.items()}))


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
@pytest.mark.parametrize("betas", [0, 1, 4, 16, 300])
def test_any_number_of_shape_directions(tmp_path, betas, suffix):
    """Missing ones have no effect, whatever their coefficient."""
    arrays = random_body(vertices=300, betas=betas)
    assert_same_body(put(tmp_path, suffix, arrays), arrays)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('was run')",))


@pytest.mark.parametrize("suffix", [".npz", ".pkl"])
def test_objects_that_would_run_are_refused(tmp_path, suffix):
    path = put(tmp_path, suffix, ARRAYS | {"J_regressor": Evil()})
    with pytest.raises(ValueError, match=r"body.*: refused: the pickle requests .*exec"):
        smpl_jax.load(path)


def archive(kind: str) -> bytes:
    stream = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(stream, "w") as file:
            file.writestr("SMPL_python_v.1.1.0/smpl/models/basicmodel_neutral.pkl", b"x")
    else:
        with tarfile.open(fileobj=stream, mode=f"w:{kind}") as file:
            file.addfile(tarfile.TarInfo("smpl/basicmodel_neutral.pkl"))
    return stream.getvalue()


WEB_PAGE = "is a web page, not SMPL's file: log in and download it again"
OTHER_FILES = {
    "web page": (b"<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>", WEB_PAGE),
    "web page after spaces": (b"\xef\xbb\xbf\r\n  <html lang='en'>", WEB_PAGE),
    "XML error": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', WEB_PAGE),
    "empty": (b"", "is empty: download it again"),
    "zip": (
        archive("zip"),
        "is an archive: unpack it.*such as SMPL_python_v.1.1.0/smpl/models/basicmodel_neutral.pkl",
    ),
    "tar": (archive(""), "is an archive .tar.: unpack it"),
    "gzip": (archive("gz"), "compressed file .gzip.: unpack it"),
    "bzip2": (archive("bz2"), "compressed file .bzip2.: unpack it"),
    "npy": (b"\x93NUMPY\x01\x00", "is not a body but a single array"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
@pytest.mark.parametrize("suffix", [".pkl", ".npz"])
def test_other_files_are_called_what_they_are(tmp_path, kind, suffix):
    content, line = OTHER_FILES[kind]
    path = tmp_path / f"SMPL_NEUTRAL{suffix}"
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=rf"^\S*SMPL_NEUTRAL{suffix}: (is not a body but .*)?{line}",
    ):
        smpl_jax.load(path)


@pytest.mark.parametrize(
    ("joints", "name"), [(16, "MANO"), (52, "SMPL-H"), (55, "SMPL-X"), (31, "another body")]
)
def test_other_bodies_are_named(tmp_path, joints, name):
    arrays = {
        "v_template": np.zeros((90, 3)),
        "shapedirs": np.zeros((90, 3, 10)),
        "posedirs": np.zeros((90, 3, 9 * (joints - 1))),
        "J_regressor": np.zeros((joints, 90)),
        "weights": np.zeros((90, joints)),
        "kintree_table": np.zeros((2, joints), np.int64),
        "f": np.zeros((9, 3), np.int64),
    }
    with pytest.raises(
        ValueError, match=rf"{name} \({joints} joints\), but SMPL \(24 joints\) is needed"
    ):
        smpl_jax.load(put(tmp_path, ".npz", arrays))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"f": np.full((9, 3), "x")}, "f is no table of whole numbers"),
        ({"kintree_table": np.full((2, 24), np.nan)}, "kintree_table is no table of whole numbers"),
        ({"kintree_table": np.array(3)}, "kintree_table has shape"),
        ({"J_regressor": np.array(3.0)}, "J_regressor has shape"),
        ({"J_regressor": {"data": np.ones(2)}}, "not a readable .npz"),
        ({"J_regressor": parts(sparse.csc_matrix(J)) | {"shape": (24, 3)}}, "not a readable .npz"),
        ({"vertex_ids": np.arange(3), "vertex_ids_names": np.array(["nose"])}, "not of one length"),
        (
            {"vertex_ids": np.array(["a"]), "vertex_ids_names": np.array(["nose"])},
            "vertex_ids is no table of whole numbers",
        ),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path, change, line):
    path = put(tmp_path, ".npz", ARRAYS | change)
    with pytest.raises(ValueError, match=rf"^{path}: .*{line}"):
        smpl_jax.load(path)


@pytest.mark.parametrize("change", ["millions", "negative", "too few", "no columns"])
def test_sparse_matrices_whose_counts_are_not_their_entries(change):
    """A pickle of 1.5 kB took 1.2 GiB: its counts were repeated as claimed."""
    matrix = sparse.csc_matrix(ARRAYS["J_regressor"])
    changed = parts(matrix)
    starts = matrix.indptr.astype(np.int64)
    starts[-1] = {"millions": 150_994_947, "negative": -1, "too few": 1, "no columns": 0}[change]
    changed["indptr"] = starts[:0] if change == "no columns" else starts
    with pytest.raises(ValueError, match="a sparse matrix (of|with)"):
        smpl_jax.safe_pickle.dense(changed, by_columns=True)
    assert smpl_jax.safe_pickle.dense(parts(matrix), by_columns=True).shape == matrix.shape
