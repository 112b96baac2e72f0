import os
import pickle
import sys
import types

import numpy as np
import pytest
import smpl_jax
from smpl_jax.keypoints import SMPL24, SMPL24_PARENTS, SMPL_VERTEX_IDS
from smpl_reference import (
    FREE_BODY,
    Global,
    Made,
    python2_array,
    python2_chumpy,
    python2_csc,
    python2_pickle,
    random_body,
)

ARRAYS = random_body(betas=12)


def official_pickle(arrays=ARRAYS):
    """An imitation of SMPL_NEUTRAL.pkl.

    It has chumpy arrays, a chumpy selection, a scipy matrix, and entries that are not needed.
    """
    chumpy = lambda x: python2_chumpy(
        "chumpy.ch.Ch",
        {"x": python2_array(x), "_dirty_vars": Made(Global("__builtin__", "set"), ((),))},
    )
    shapedirs = arrays["shapedirs"]
    kept = np.arange(shapedirs.size).reshape(shapedirs.shape)[..., :11]
    selection = {
        "a": chumpy(shapedirs),
        "idxs": python2_array(kept.ravel()),
        "preferred_shape": kept.shape,
    }
    return {
        "v_template": chumpy(arrays["v_template"]),
        "shapedirs": python2_chumpy("chumpy.reordering.Select", selection),
        "posedirs": python2_array(arrays["posedirs"]),
        "J_regressor": python2_csc(arrays["J_regressor"]),
        "weights": chumpy(arrays["weights"]),
        "kintree_table": python2_array(arrays["kintree_table"].astype(np.int64)),
        "f": python2_array(arrays["f"]),
        "J": python2_chumpy("chumpy.ch.MatVecMult", {"mtx": python2_csc(arrays["J_regressor"])}),
        "bs_type": "lrotmin",
        "bs_style": "lbs",
    }


def assert_holds(model, arrays, betas=10):
    np.testing.assert_allclose(model.template.T, arrays["v_template"], atol=1e-6)
    directions = np.concatenate([arrays["shapedirs"][..., :betas], arrays["posedirs"]], -1)
    np.testing.assert_allclose(np.transpose(model.directions, (2, 1, 0)), directions, atol=1e-6)
    np.testing.assert_allclose(model.weights.T, arrays["weights"], atol=1e-6)
    np.testing.assert_allclose(
        model.joint_template, arrays["J_regressor"] @ arrays["v_template"], atol=1e-6
    )
    np.testing.assert_array_equal(model.faces, arrays["f"])
    assert model.parents == SMPL24_PARENTS and model.joint_names == SMPL24


def test_official_pickle_without_chumpy_or_scipy(tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(python2_pickle(official_pickle()))
    model = smpl_jax.load(path)
    assert_holds(model, ARRAYS)
    assert model.num_betas == 10 and model.vertex_ids == SMPL_VERTEX_IDS
    assert not any(name.split(".")[0] == "chumpy" for name in sys.modules)
    assert_holds(smpl_jax.load(path, num_betas=11), ARRAYS, betas=11)


def test_fortran_ordered_and_sparse_row_arrays(tmp_path):
    content = official_pickle()
    fortran = python2_array(ARRAYS["v_template"])
    fortran.state = (1, (6890, 3), fortran.state[2], True, ARRAYS["v_template"].T.tobytes())
    rows = python2_csc(ARRAYS["J_regressor"].T)
    rows.arguments = (Global("scipy.sparse.csr", "csr_matrix"), *rows.arguments[1:])
    rows.state["_shape"] = (24, 6890)
    path = tmp_path / "smpl.pkl"
    path.write_bytes(python2_pickle({**content, "v_template": fortran, "J_regressor": rows}))
    assert_holds(smpl_jax.load(path), ARRAYS)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_that_python_3_wrote(tmp_path, monkeypatch, protocol):
    """Users convert the official files with Python 3. Here a stand-in for chumpy is pickled."""

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    for name in ("chumpy", "chumpy.ch"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["chumpy.ch"].Ch = Ch
    content = dict(
        ARRAYS,
        shapedirs=Ch(ARRAYS["shapedirs"]),
        note=np.float64(3),
        names=np.array(["a", "b"], object),
    )
    path = tmp_path / "clean.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    monkeypatch.undo()
    assert_holds(smpl_jax.load(path), ARRAYS)


def test_scipy_matrix_of_today(tmp_path):
    sparse = pytest.importorskip("scipy.sparse")
    for matrix in (sparse.csc_matrix, sparse.csr_matrix):
        path = tmp_path / "smpl.pkl"
        path.write_bytes(pickle.dumps(dict(ARRAYS, J_regressor=matrix(ARRAYS["J_regressor"]))))
        assert_holds(smpl_jax.load(path), ARRAYS)


def test_npz(tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.npz"
    arrays = random_body(betas=300)
    np.savez_compressed(path, **arrays)
    assert_holds(smpl_jax.load(path), arrays)
    assert smpl_jax.load(path, num_betas=300).num_betas == 300


def test_free_body():
    arrays, model = dict(np.load(FREE_BODY)), smpl_jax.load(FREE_BODY)
    assert_holds(model, arrays)
    assert set(model.vertex_ids) == set(SMPL_VERTEX_IDS) and model.vertex_ids != SMPL_VERTEX_IDS


class _Evil:
    def __init__(self, call, *arguments):
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_malicious_pickles_are_refused_and_do_nothing(tmp_path, protocol):
    mark = tmp_path / "was_here"
    attacks = [
        _Evil(os.system, f"touch {mark}"),
        _Evil(eval, f"open({str(mark)!r}, 'w')"),
        _Evil(getattr, "text", "upper"),
        _Evil(np.load, "x"),
    ]
    for attack in attacks:
        path = tmp_path / "SMPL_NEUTRAL.pkl"
        path.write_bytes(pickle.dumps({"v_template": attack}, protocol))
        with pytest.raises(
            ValueError, match=r"SMPL_NEUTRAL.pkl: refused: the pickle requests .*smpl.is.tue.mpg.de"
        ):
            smpl_jax.load(path)
    assert not mark.exists()


def test_pickles_cannot_change_the_stand_ins(tmp_path):
    """BUILD with a slot state sets attributes of the object on the stack, here of a class."""
    path = tmp_path / "smpl.pkl"
    for name in (
        "chumpy.ch\nCh",
        "numpy\ndtype",
        "numpy.core.multiarray\n_reconstruct",
        "numpy.core.multiarray\nscalar",
        "_codecs\nencode",
    ):
        poison = f"c{name}\n".encode() + b"(N}(U\x0c__setstate__c__builtin__\nset\nutb"
        path.write_bytes(b"\x80\x02" + poison + b".")
        with pytest.raises(ValueError, match="refused"):
            smpl_jax.load(path)
    path.write_bytes(python2_pickle(official_pickle()))
    assert_holds(smpl_jax.load(path), ARRAYS)


def test_reconstructor_builds_only_stand_ins(tmp_path):
    path = tmp_path / "smpl.pkl"
    for kind in (Global("__builtin__", "set"), Global("numpy", "dtype")):
        arguments = (kind, Global("__builtin__", "object"), None)
        content = {"f": Made(Global("copy_reg", "_reconstructor"), arguments)}
        path.write_bytes(python2_pickle(content))
        with pytest.raises(ValueError, match="refused: it builds"):
            smpl_jax.load(path)


def test_lying_arrays_are_refused(tmp_path):
    path = tmp_path / "smpl.pkl"
    huge = python2_array(np.zeros(2))
    huge.state = (1, (10**9, 10**9), *huge.state[2:])
    path.write_bytes(python2_pickle({**official_pickle(), "weights": huge}))
    with pytest.raises(ValueError, match="does not fit its 16 bytes"):
        smpl_jax.load(path)
    sparse = python2_csc(np.eye(3))
    sparse.state["_shape"] = (2**30, 2**30)
    path.write_bytes(python2_pickle({**official_pickle(), "J_regressor": sparse}))
    with pytest.raises(ValueError, match="J_regressor cannot be read"):
        smpl_jax.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x02", b"not a pickle at all", b"\x80\x02]q\x00.", b"\x80\x02}q\x00."]
)
def test_broken_files_name_the_file_and_the_source(tmp_path, content):
    path = tmp_path / "broken.pkl"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"broken.pkl: .*https://smpl.is.tue.mpg.de"):
        smpl_jax.load(path)


def test_truncated_files(tmp_path):
    whole = python2_pickle(official_pickle())
    (tmp_path / "cut.pkl").write_bytes(whole[: len(whole) // 2])
    np.savez(tmp_path / "whole.npz", **ARRAYS)
    data = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    damaged = bytearray(data)
    damaged[5000:6000] = bytes(1000)
    (tmp_path / "damaged.npz").write_bytes(damaged)
    compressed = bytearray(FREE_BODY.read_bytes())
    compressed[5000:6000] = bytes(1000)
    (tmp_path / "compressed.npz").write_bytes(compressed)
    for name in ("cut.pkl", "cut.npz", "damaged.npz", "compressed.npz"):
        with pytest.raises(ValueError, match=name):
            smpl_jax.load(tmp_path / name)


def test_missing_file(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"SMPL_MALE.pkl: no such body file; .*https://smpl.is.tue.mpg.de"
    ):
        smpl_jax.load(tmp_path / "SMPL_MALE.pkl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"posedirs": None}, "lacks posedirs"),
        ({"weights": ARRAYS["weights"][:, :16]}, "has shape"),
        ({"weights": ARRAYS["weights"][0]}, "no table of numbers"),
        ({"shapedirs": ARRAYS["shapedirs"][:-1]}, "shapedirs has shape"),
        ({"f": ARRAYS["f"] + 9000}, "no list of triangles"),
        ({"v_template": ARRAYS["v_template"] * np.nan}, "not finite"),
        ({"v_template": np.full((6890, 3), "x")}, "no table of numbers"),
        ({"kintree_table": ARRAYS["kintree_table"][:, ::-1]}, "does not come before its child"),
        ({"joint_names": np.array(SMPL24[::-1])}, "joints are not SMPL's 24"),
        (
            {"vertex_ids": np.array([9999]), "vertex_ids_names": np.array(["nose"])},
            "outside of its 6890 vertices",
        ),
        ({"v_template": np.array([{}], object)}, "no table of numbers"),
    ],
)
def test_npz_that_is_no_smpl_body(tmp_path, change, message):
    arrays = {key: value for key, value in {**ARRAYS, **change}.items() if value is not None}
    np.savez(tmp_path / "odd.npz", **arrays)
    with pytest.raises(ValueError, match=rf"odd.npz: .*{message}.*https://smpl.is.tue.mpg.de"):
        smpl_jax.load(tmp_path / "odd.npz")
