"""What NumPy wraps in an array of objects without axes is read as what it holds, by every
reader."""

import pickle

import numpy as np
import pytest

from genhmr_jax.data.sources import find
from genhmr_jax.data.sources.photos import flat_numbers
from genhmr_jax.data.sources.reading import (
    bare,
    entry,
    numbers,
    optional_entry,
    read_npz,
    read_pickle,
)
from genhmr_jax.io.errors import InputError
from support import people_fixtures, pose_fixtures
from support.people_studio import object_array


def wrapped(value):
    """A dictionary or list, and whatever is in it, each in an array of objects of its own."""
    if isinstance(value, dict):
        value = {key: wrapped(inner) for key, inner in value.items()}
    elif isinstance(value, list):
        value = [wrapped(inner) for inner in value]
    return object_array(value)


PICKLES = {
    "threedpw": ("test", "3DPW/sequenceFiles/test/*.pkl"),
    "emdb": ("emdb1", "EMDB/*/*/*_data.pkl"),
    "moyo": ("train", "moyo/mosh_smpl/train/*.pkl"),
    "aist": ("train", "aist_plusplus/motions/*.pkl"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_of_sequences(tmp_path, name):
    split, files = PICKLES[name]
    writers = people_fixtures if name in people_fixtures.WRITERS else pose_fixtures
    writers.write(name, tmp_path)

    def read():
        return list(find(name).records(tmp_path, split, find(name).report()))

    plain = read()
    for path in tmp_path.glob(files):
        path.write_bytes(pickle.dumps(wrapped(read_pickle(path))))
    again = read()
    assert plain and len(plain) == len(again)
    for one, other in zip(plain, again, strict=True):
        for field, value in one.items():
            np.testing.assert_array_equal(value, other[field], field)


NPZ = {
    "amass": ("train", "amass/**/*_poses.npz"),
    "human36m": ("p2", "h36m/h36m_valid_protocol2.npz"),
    "hmr2_eval": ("threedpw_test", "hmr2_evaluation_data/3dpw_test.npz"),
    "tokenhmr_poses": ("val", "tokenization_data/smplh/val/*.npz"),
}


@pytest.mark.parametrize("name", NPZ)
def test_npz_with_arrays_of_objects(tmp_path, name):
    """An array of objects for each array, or without axes for each number and text: the same
    records."""
    split, files = NPZ[name]
    writers = people_fixtures if name in people_fixtures.WRITERS else pose_fixtures
    writers.write(name, tmp_path)

    def read():
        return list(find(name).records(tmp_path, split, find(name).report()))

    plain = read()
    for path in tmp_path.glob(files):
        with np.load(path, allow_pickle=True) as data:
            arrays = {key: np.array(data[key], dtype=object) for key in data}
        np.savez(path, **arrays)
    for one, other in zip(plain, read(), strict=True):
        for field, value in one.items():
            np.testing.assert_array_equal(value, other[field], field)


def test_one_gender_for_all_poses_is_named(tmp_path):
    pose_fixtures.write("tokenhmr_poses", tmp_path)
    (path,) = tmp_path.glob("tokenization_data/smplh/val/*.npz")
    with np.load(path) as data:
        arrays = dict(data)
    np.savez(path, **arrays | {"gender": np.array("male")})
    with pytest.raises(InputError, match="6 poses, 1 genders and 6 names"):
        list(find("tokenhmr_poses").records(tmp_path, "val", find("tokenhmr_poses").report()))


def test_entries_of_wrapped_dictionaries(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x={"loss": np.float32(2.5), "none": None})
    found = read_npz(path, ["x"])["x"]
    assert found.shape == () and bare(found) == {"loss": np.float32(2.5), "none": None}
    assert entry(found, "loss", "here") == 2.5 and optional_entry(found, "loss", "here") == 2.5
    assert (
        optional_entry(found, "other", "here") is None and optional_entry(None, "x", "here") is None
    )
    assert optional_entry(optional_entry(found, "none", "here"), "x", "here") is None
    assert numbers(object_array(object_array([1, 2])), (2,), "x", "here").tolist() == [1, 2]
    assert flat_numbers(object_array(3), 1, "x", "here").tolist() == [3]
    for read in (entry, optional_entry):  # what is no dictionary is told, not passed over
        with pytest.raises(InputError, match="here: holds a list instead of a dictionary"):
            read(object_array([1]), "loss", "here")
