"""Which person is where, and batches of people without gaps; feature sets, which use both."""

import contextlib
import json

import jax
import numpy as np
import pytest

from genhmr_jax.data.feature_set import FeatureSet
from genhmr_jax.data.packing import PersonIndex, pack
from genhmr_jax.data.rows import Rows, row_checks, to_arrays, write_checks
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.io.errors import InputError


def test_people_are_numbered_image_by_image():
    index = PersonIndex(np.array([2, 0, 0, 3, 1, 0]))
    assert len(index) == 6
    image, person = index.locate(np.arange(6))
    assert image.tolist() == [0, 0, 3, 3, 3, 4]
    assert person.tolist() == [0, 1, 0, 1, 2, 0]
    image, person = index.locate(np.array([[5, 2], [4, 0]]))  # any shape and order
    assert image.tolist() == [[4, 3], [3, 0]] and person.tolist() == [[0, 0], [2, 0]]


@pytest.mark.parametrize("number", [-1, 3])
def test_nobody_by_that_number(number):
    with pytest.raises(IndexError, match="numbers are from 0 to 2"):
        PersonIndex(np.array([1, 2])).locate(np.array([0, number]))


def test_counts_that_are_none():
    with pytest.raises(ValueError, match="one number >= 0"):
        PersonIndex(np.array([1, -1]))
    with pytest.raises(ValueError, match="one number >= 0"):
        PersonIndex(np.ones((2, 2)))


def test_packed_by_hand():
    first, second = pack(np.array([3, 0, 4]), 4)
    assert first.image.tolist() == [0, 0, 0, 2] and first.person.tolist() == [
        0,
        1,
        2,
        0,
    ]  # image 2's people lie in both
    assert second.image.tolist() == [2, 2, 2, 2] and second.person.tolist() == [1, 2, 3, 3]
    assert first.weight.tolist() == [1, 1, 1, 1] and second.weight.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    "counts, size, batches", [([1] * 8, 4, 2), ([5], 2, 3), ([0, 0], 4, 0), ([], 4, 0), ([2], 8, 1)]
)
def test_everybody_once(counts, size, batches):
    packed = pack(np.array(counts, int), size)
    assert len(packed) == batches
    assert all(len(part.image) == len(part.person) == len(part.weight) == size for part in packed)
    assert all((part.weight == 1).all() for part in packed[:-1])  # padding in the last one alone
    people = [
        (i, p)
        for part in packed
        for i, p, w in zip(part.image.tolist(), part.person.tolist(), part.weight, strict=True)
        if w
    ]
    assert people == [(i, p) for i, count in enumerate(counts) for p in range(count)]


@pytest.fixture
def features(tmp_path) -> FeatureSet:
    """Seven rows with two levels of maps; row i holds i everywhere."""

    def array(*shape, kind=np.float32):
        return np.broadcast_to(np.arange(7, dtype=kind).reshape(7, *[1] * len(shape)), (7, *shape))

    rows = Rows(
        view=CropCamera(array(3), array(), array(2)),
        rotmats=array(24, 3, 3),
        betas=array(10),
        joints=array(24, 3),
        keypoints=array(23, 3),
        points2d=array(23, 2),
        weak_camera=array(3),
        maps=[array(4, 4, 2, kind=np.float16), array(2, 2, 3, kind=np.float16)],
    )
    arrays = to_arrays(rows)
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
    write_checks(tmp_path, {name: row_checks(values) for name, values in arrays.items()})
    meta = {"samples": 7, "encoder": "blazepose_full", "arrays": sorted(arrays)}
    (tmp_path / "done.json").write_text(json.dumps(meta))
    return FeatureSet(tmp_path)


def test_all_batches_leave_nobody_out(features):
    batches = features.all_batches(3)
    weight = np.concatenate([b.weight for b in batches])
    betas = np.concatenate([b.betas[:, 0] for b in batches])
    assert [b.size for b in batches] == [3, 3, 3]
    assert weight.tolist() == [1] * 7 + [0] * 2 and betas[weight > 0].tolist() == list(range(7))
    np.testing.assert_array_equal(batches[1].maps[1][:, 0, 0, 0], [3, 4, 5])


def test_feature_source_is_a_function_of_the_sample_number(features):
    source = features.source(4, seed=1)
    whole, part = source.load(np.arange(200)), source.load(np.array([150, 3]))
    np.testing.assert_array_equal(part.betas, whole.betas[[150, 3]])
    # The arrays of a row belong together.
    np.testing.assert_array_equal(part.maps[0][:, 0, 0, 0], part.betas[:, 0])
    np.testing.assert_array_equal(part.view.crop[:, 0], part.betas[:, 0])
    np.testing.assert_array_equal(part.number, [150, 3])
    drawn = np.bincount(whole.betas[:, 0].astype(int), minlength=7)
    assert drawn.min() > 10  # all rows are drawn
    assert (features.source(4, seed=2).load(np.arange(200)).betas != whole.betas).any()


def test_feature_source_tells_its_shapes(features):
    source = features.source(4, seed=1)
    told = jax.tree.map(lambda s: (s.shape, np.dtype(s.dtype)), source.shapes())
    assert told == jax.tree.map(lambda x: (x.shape[1:], x.dtype), source.load(np.arange(4)))
    assert told.maps == [((4, 4, 2), np.float16), ((2, 2, 3), np.float16)]


def test_a_damaged_row_is_named(features, tmp_path):
    """A flipped bit of a stored row would be trained from without notice."""
    file = tmp_path / "betas.npy"
    content = bytearray(file.read_bytes())
    content[-10 * 4 * 3 + 1] ^= 64  # of row 4 of 7
    file.write_bytes(content)
    damaged = FeatureSet(tmp_path)
    damaged.rows(np.array([0, 6]))
    with pytest.raises(InputError, match=r"betas.npy: is damaged \(the checksum of row 4 differs"):
        damaged.rows(np.array([6, 4, 1]))
    # The header is Python, and what NumPy raises for a damaged one may be any type.
    headers = [content[:start] + bytes(4) + content[start + 4 :] for start in range(0, 120, 7)]
    for damaged in (content[:-8], content[:40], bytes(len(content)), b"", *headers):
        file.write_bytes(damaged)
        with contextlib.suppress(InputError):
            FeatureSet(tmp_path)  # some zeros are in the padding of the header
    file.write_bytes(content[:30] + bytes(len(content) - 30))
    with pytest.raises(InputError, match="betas.npy: is damaged"):
        FeatureSet(tmp_path)
    (tmp_path / "crc32.npz").unlink()
    with pytest.raises(InputError, match="crc32.npz: no such file of checksums"):
        FeatureSet(tmp_path)
