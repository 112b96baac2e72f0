"""`People`: shapes are checked, files come back equal, without pickles, and never half-written."""

import dataclasses

import numpy as np
import pytest

from genhmr_jax import InputError, People
from genhmr_jax.io.atomic import atomic_path
from support.fakes import fake_people


def test_round_trip(tmp_path):
    people = fake_people(2, refine_loss=np.ones((2, 5)), tokens=np.arange(6).reshape(2, 3))
    people.save(tmp_path / "x.npz")
    loaded = People.load(tmp_path / "x.npz")
    assert len(loaded) == 2 and loaded.arrays().keys() == people.arrays().keys()
    for name, array in people.arrays().items():
        assert np.array_equal(getattr(loaded, name), array), name
        assert getattr(loaded, name).dtype == array.dtype, name
    assert loaded.vertex_std is None
    with np.load(tmp_path / "x.npz", allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_nobody_is_a_valid_result(tmp_path):
    fake_people(0).save(tmp_path / "none.npz")
    assert len(People.load(tmp_path / "none.npz")) == 0


def test_shapes_that_do_not_fit_are_refused():
    people = fake_people(2)
    with pytest.raises(ValueError, match=r"People\.betas: shape \(3, 10\)"):
        dataclasses.replace(people, betas=np.zeros((3, 10)))
    with pytest.raises(ValueError, match=r"People\.body_pose: shape \(2, 63\)"):
        dataclasses.replace(people, body_pose=np.zeros((2, 63)))


def test_loading_what_is_not_ours(tmp_path):
    with pytest.raises(FileNotFoundError):
        People.load(tmp_path / "gone.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match=r"text\.npz: is not an \.npz file of results"):
        People.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", boxes=np.zeros((1, 4)))
    with pytest.raises(InputError, match=r"other\.npz: lacks .*vertices"):
        People.load(tmp_path / "other.npz")
    np.savez(tmp_path / "evil.npz", boxes=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"evil\.npz"):
        People.load(tmp_path / "evil.npz")
    whole = tmp_path / "x.npz"
    fake_people(1).save(whole)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"x\.npz: is not an \.npz"):
        People.load(whole)


def test_reprojection_error_counts_what_was_seen():
    people = fake_people(2)
    keypoints = people.keypoints2d.copy()
    keypoints[0, :, 2], keypoints[1, :, 2] = 0.9, 0.0
    keypoints[0, 0, 2] = 0.1
    shifted = keypoints[..., :2] + [3, 4]
    shifted[0, 0] += 1000  # unseen: must not count
    people = dataclasses.replace(people, keypoints2d=keypoints, projected_keypoints=shifted)
    error = people.reprojection_error()
    assert error[0] == pytest.approx(5) and np.isnan(error[1])
    assert np.isnan(
        dataclasses.replace(people, sampled_keypoints=None).reprojection_error(refined=False)
    ).all()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with atomic_path(path) as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_missing_directory_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be written"):
        fake_people(1).save(tmp_path / "gone" / "x.npz")
