"""Releases of people that are not whole or in wrong units: every fault names dataset, file and
record, and with skip_bad is listed while the rest is read."""

import os
import shutil
import tarfile

import numpy as np
import pytest

from genhmr_jax.data.sources import MissingError, find
from genhmr_jax.io.errors import InputError
from support.broken_releases import COCO, change_npz, change_person, change_pickle, check
from support.python2_pickles import numpy1_pickle, python2_pickle


@pytest.fixture
def manual(whole, tmp_path):
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "manual")


# --- half-downloaded, absent, empty


def test_half_a_tar(manual):
    path = manual / COCO / "000001.tar"
    path.write_bytes(path.read_bytes()[:-15_000])
    error = check(manual, "hmr2_coco", "train", "is not a whole tar", left=3)
    assert "000001.tar" in error and "download" in error


def test_a_tar_cut_between_two_files(manual):
    path = manual / COCO / "000000.tar"
    with tarfile.open(path) as tar:
        cut = tar.getmember("coco-train-2014/000000000049.jpg").offset
    path.write_bytes(path.read_bytes()[:cut])
    check(
        manual, "hmr2_coco", "train", "its end is missing", left=1
    )  # nobody knows if the last sample is whole


def test_an_absent_image(manual):
    for name, split, image, left in (
        ("threedpw", "test", "3DPW/imageFiles/downtown_arguing_00/image_00002.jpg", 3),
        ("emdb", "emdb1", "EMDB/P1/14_outdoor_climb/images/00002.jpg", 2),
        ("human36m", "p2", "h36m/images/S9_Directions_1.60457274_000006.jpg", 1),
        (
            "hmr2_eval",
            "coco_val",
            "hmr2_evaluation_data/coco/val2014/COCO_val2014_000000000073.jpg",
            1,
        ),
    ):
        (manual / image).unlink()
        error = check(manual, name, split, "is absent", left, listed=2 if name == "threedpw" else 1)
        assert os.path.basename(image) in error


def test_an_image_cut_short(manual):
    path = manual / "EMDB/P1/14_outdoor_climb/images/00003.jpg"
    path.write_bytes(path.read_bytes()[:-3000])
    assert "frame 3" in check(manual, "emdb", "emdb1", "image is cut short", left=2)


def test_something_that_is_no_image(manual):
    (manual / "EMDB/P1/14_outdoor_climb/images/00000.jpg").write_text("<html>404</html>")
    check(manual, "emdb", "emdb1", "cannot be read", left=2)


def test_a_missing_split_says_what_to_download(manual):
    shutil.rmtree(manual / "3DPW/sequenceFiles/test")
    (manual / "h36m/h36m_valid_protocol2.npz").unlink()
    (manual / "hmr2_evaluation_data/emdb.npz").unlink()
    for name, split, named in (
        ("threedpw", "test", "sequenceFiles/test"),
        ("human36m", "p2", "protocol2"),
        ("hmr2_eval", "emdb", "emdb.npz"),
    ):
        source = find(name)
        with pytest.raises(MissingError) as caught:
            list(source.records(manual, split, source.report(skip_bad=True)))
        assert named in str(caught.value) and source.layout in str(caught.value)


@pytest.mark.parametrize("key", ["imgname", "center", "scale", "S"])
def test_an_npz_without_a_key(manual, key):
    change_npz(manual / "h36m/h36m_valid_protocol2.npz", **{key: None})
    source = find("human36m")
    with pytest.raises(InputError, match=f"h36m_valid_protocol2.npz: has no {key} "):
        list(source.records(manual, "p2", source.report()))


def test_arrays_of_different_lengths(manual):
    change_npz(manual / "hmr2_evaluation_data/3dpw_test.npz", betas=lambda betas: betas[:1])
    source = find("hmr2_eval")
    with pytest.raises(InputError, match="imgname 2, but betas 1"):
        list(source.records(manual, "threedpw_test", source.report()))


def test_an_empty_sequence(manual):
    def empty(content):
        content["poses"][0] = content["poses"][0][:0]

    change_pickle(manual / "3DPW/sequenceFiles/test/downtown_arguing_00.pkl", empty, python2_pickle)
    extra = manual / "3DPW/sequenceFiles/test/another.pkl"
    shutil.copy(manual / "3DPW/sequenceFiles/train/courtyard_arguing_00.pkl", extra)
    assert "actor 0" in check(manual, "threedpw", "test", "the sequence is empty", left=1)


def test_a_sequence_of_bad_frames_alone(manual):
    change_pickle(
        manual / "EMDB/P1/14_outdoor_climb/P1_14_outdoor_climb_data.pkl",
        lambda content: content.update(good_frames_mask=np.zeros(4, bool)),
        numpy1_pickle,
    )
    source = find("emdb")
    with pytest.raises(InputError, match="has no good frame"):
        list(source.records(manual, "emdb1", source.report()))


def test_bad_frames_may_hold_anything(manual):
    """Frames that the release itself calls bad are not looked at; a good one without a box gets the
    box of its joints."""

    def spoil(content):
        for array in (
            *content["smpl"].values(),
            content["camera"]["extrinsics"],
            content["kp2d"],
            content["bboxes"]["bboxes"],
        ):
            if len(array) == 4:
                array[1] = np.nan
        content["bboxes"]["bboxes"][2] = np.nan

    change_pickle(
        manual / "EMDB/P1/14_outdoor_climb/P1_14_outdoor_climb_data.pkl", spoil, numpy1_pickle
    )
    source = find("emdb")
    records = list(source.records(manual, "emdb1", source.report()))
    assert [record["frame"] for record in records] == [0, 2, 3] and all(
        record["has_translation"] for record in records
    )
    pixels = records[1]["keypoints2d"][records[1]["keypoints2d"][:, 2] > 0, :2]
    x0, y0, x1, y1 = records[1]["box"]
    assert (
        (pixels >= [x0, y0]).all()
        and (pixels <= [x1, y1]).all()
        and x1 - x0 == pytest.approx(y1 - y0, abs=0.01)
    )


def test_a_good_frame_that_is_not_finite(manual):
    def spoil(content):
        content["smpl"]["poses_root"][2] = np.nan

    change_pickle(
        manual / "EMDB/P1/14_outdoor_climb/P1_14_outdoor_climb_data.pkl", spoil, numpy1_pickle
    )
    assert "frame 2" in check(
        manual, "emdb", "emdb1", "global_orient has numbers that are not finite", left=2
    )


def test_an_empty_npz(manual):
    change_npz(
        manual / "h36m/h36m_valid_protocol2.npz",
        **dict.fromkeys(("imgname", "center", "scale", "S"), lambda array: array[:0]),
    )
    source = find("human36m")
    with pytest.raises(InputError, match="is empty"):
        list(source.records(manual, "p2", source.report()))


# --- wrong units


def test_scales_over_200_where_pixels_belong(manual):
    change_npz(manual / "hmr2_evaluation_data/3dpw_test.npz", scale=lambda scale: scale / 200)
    assert "scale should be in pixels" in check_all_bad(manual, "hmr2_eval", "threedpw_test")


def test_pixel_scales_where_scales_over_200_belong(manual):
    change_npz(manual / "hmr2_evaluation_data/emdb.npz", scale=lambda scale: scale * 200)
    assert "scale should be in units of 200 px" in check_all_bad(manual, "hmr2_eval", "emdb")
    change_person(manual, lambda person: person.update(scale=person["scale"] * 200))
    assert "width and height over 200 px" in check(
        manual, "hmr2_coco", "train", "wrong units", left=3
    )


def check_all_bad(manual, name, split):
    source = find(name)
    with pytest.raises(InputError, match="wrong units") as caught:
        list(source.records(manual, split, source.report()))
    with pytest.raises(MissingError, match="2 skipped"):  # nothing is left
        list(source.records(manual, split, source.report(skip_bad=True)))
    return str(caught.value)


def test_degrees_and_millimetres(manual):
    change_person(manual, lambda person: person.update(body_pose=np.degrees(person["body_pose"])))
    assert "person 0" in check(manual, "hmr2_coco", "train", "wrong units: a joint turns", left=3)
    change_npz(
        manual / "h36m/h36m_valid_protocol2.npz", S=lambda points: points * [1000, 1000, 1000, 1]
    )
    check_all_bad(manual, "human36m", "p2")
