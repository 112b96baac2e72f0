"""What systems leave in folders (._ files, .DS_Store, __MACOSX, ...) is no part of a release.

And a release of another body is named.
"""

import pickle
import shutil
import tarfile
import warnings

import numpy as np
import pytest

from genhmr_jax.data.sources import find
from genhmr_jax.io.errors import InputError
from support import people_fixtures, pose_fixtures

FORK = (
    bytes.fromhex("0005160700020000")
    + b"Mac OS X        "
    + bytes(60)
    + b"This resource fork intentionally left blank   "
)
POSES = tuple(pose_fixtures.NAMES)
PEOPLE = tuple(people_fixtures.WRITERS)


def leave(folder) -> None:
    """In every folder, beside every file: as macOS, Windows and a network disk leave them."""
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        files = [path for path in place.iterdir() if path.is_file()]
        for name in ("__MACOSX", "@eaDir", ".Trashes"):
            (place / name).mkdir()
            for file in files:
                (place / name / f"._{file.name}").write_bytes(FORK)
                (place / name / file.name).write_bytes(FORK)
        for name in [
            ".DS_Store",
            "Thumbs.db",
            "desktop.ini",
            *(f"._{file.name}" for file in files),
        ]:
            (place / name).write_bytes(FORK)


def read_all(name, folder):
    source = find(name)
    report, found = source.report(), []
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the histogram of improbable poses is not part of the fixtures
        for split in source.splits:
            try:
                found += list(source.records(folder, split, report))
            except InputError as error:
                if "holds no" not in str(error) and "no such file" not in str(
                    error
                ):  # a split that the fixture does not have
                    raise
    return found


@pytest.mark.parametrize("name", [*POSES, *PEOPLE])
def test_leftovers_change_nothing(tmp_path, name):
    (pose_fixtures if name in POSES else people_fixtures).write(name, tmp_path)
    clean = read_all(name, tmp_path)
    leave(tmp_path)
    again = read_all(name, tmp_path)
    assert clean and len(again) == len(clean)
    for one, other in zip(clean, again, strict=True):
        for key, value in one.items():
            np.testing.assert_array_equal(other[key], value)


def test_tars_that_a_mac_wrote(tmp_path):
    people_fixtures.write("hmr2_coco", tmp_path)
    clean = read_all("hmr2_coco", tmp_path)
    for path in [*tmp_path.rglob("*.tar")]:
        unpacked = tmp_path / "unpacked"
        with tarfile.open(path) as archive:
            archive.extractall(unpacked, filter="data")
            names = archive.getnames()
        with tarfile.open(path, "w") as archive:
            for name in names:
                (fork := unpacked / "fork").write_bytes(FORK)
                if (unpacked / name).is_file():
                    folder, _, base = name.rpartition("/")
                    archive.add(fork, f"{folder}/._{base}" if folder else f"._{base}")
                archive.add(unpacked / name, name, recursive=False)
        shutil.rmtree(unpacked)
    found = read_all("hmr2_coco", tmp_path)
    assert [record["image_name"] for record in found] == [
        record["image_name"] for record in clean
    ] and len(clean)


@pytest.mark.parametrize(
    ("joints", "called"),
    [(55, "the SMPL-X download"), (24, "the SMPL download"), (30, "another download")],
)
def test_another_download_of_amass_is_named(tmp_path, joints, called):
    folder = tmp_path / "amass/CMU/01"
    folder.mkdir(parents=True)
    clip = dict(
        poses=np.zeros((40, 3 * joints)),
        trans=np.zeros((40, 3)),
        betas=np.zeros(16),
        gender=np.array("female"),
    )
    np.savez(folder / "01_01_stageii.npz", **clip)
    report = find("amass").report()
    with pytest.raises(
        InputError,
        match=f'stageii.npz: is of {called}.*"SMPL\\+H G".*is needed.*https://amass.is.tue.mpg.de',
    ):
        list(find("amass").records(tmp_path, "train", report))


def test_the_shapes_of_smplx_are_named_where_they_come_first(tmp_path):
    folder = tmp_path / "amass/CMU/01"
    folder.mkdir(parents=True)
    np.savez(folder / "female_stagei.npz", betas=np.zeros(16), gender=np.array("female"))
    with pytest.raises(
        InputError, match="female_stagei.npz: is of the SMPL-X download; .*is needed"
    ):
        list(find("amass").records(tmp_path, "train", find("amass").report()))


def test_the_other_fits_of_moyo_are_named(tmp_path):
    (tmp_path / "moyo/mosh_smplx/train").mkdir(parents=True)
    with pytest.raises(InputError, match=r"mosh_smplx has the SMPL-X fits.*mosh_smpl"):
        list(find("moyo").records(tmp_path, "train", find("moyo").report()))
    (tmp_path / "moyo/mosh_smpl").symlink_to(tmp_path / "moyo/mosh_smplx")
    (tmp_path / "moyo/mosh_smplx/train/x.pkl").write_bytes(
        pickle.dumps({"fullpose": np.zeros((5, 165)), "betas": np.zeros(10)})
    )
    with pytest.raises(InputError, match=r"x.pkl: is of the SMPL-X fits .*download the SMPL fits"):
        list(find("moyo").records(tmp_path, "train", find("moyo").report()))
