"""Broken releases of people: every fault names dataset, file and record, and with skip_bad is
listed while the rest is read."""

import copy
import io
import os
import pickle
import shutil
import tarfile
import warnings

import numpy as np
import pytest

from genhmr_jax.data.sources import MissingError, find
from genhmr_jax.data.sources.reading import read_pickle
from genhmr_jax.io.errors import InputError
from support import people_fixtures
from support.people_studio import Studio
from support.python2_pickles import numpy1_pickle, python2_pickle

COCO = "hmr2_training_data/dataset_tars/coco-train-2014-pruned"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    for name in ("hmr2_coco", "hmr2_eval", "bedlam", "threedpw", "emdb", "human36m"):
        people_fixtures.write(name, folder)
    return folder


@pytest.fixture
def manual(whole, tmp_path):
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "manual")


def check(manual, name, split, problem, left, listed=1):
    """Stops without skip_bad with an error that names the dataset and says `problem`; with it reads
    `left` records. Returns the error."""
    source = find(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(InputError, match=problem) as caught:
            list(source.records(manual, split, source.report()))
        report = source.report(skip_bad=True)
        records = list(source.records(manual, split, report))
    assert str(caught.value).startswith(f"{name}: {manual}")
    assert "\n" not in str(caught.value)
    assert len(records) == left
    assert len(report.listed) == listed and str(caught.value) == report.listed[0]
    assert report.summary().startswith(f"{listed} skipped")
    return str(caught.value)


def change_npz(path, **changes):
    """Rewrites an npz with some arrays changed (by a function of the array) or left out (None)."""
    with np.load(path, allow_pickle=True) as data:
        arrays = {name: data[name] for name in data}
    for name, change in changes.items():
        arrays[name] = arrays.pop(name) if change is None else change(arrays[name])
        if change is None:
            del arrays[name]
    np.savez(path, **arrays)


def writable(source):
    """What a pickle of the fixtures holds, to be changed."""
    return copy.deepcopy(read_pickle(source))


def change_pickle(path, change, dump):
    content = writable(path)
    change(content)
    path.write_bytes(dump(content))


def change_person(manual, change):
    """Rewrites the one person of the second tar."""
    path = manual / COCO / "000001.tar"
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    people = writable(members[1][1])
    change(people[0])
    Studio(manual, None, 0).put_tar(
        f"{COCO}/000001.tar", [members[0], (members[1][0], numpy1_pickle(people))]
    )


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


# --- content that is not what it should be


def test_a_sample_without_an_image_or_people(manual):
    path = manual / COCO / "000001.tar"
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    studio = Studio(manual, None, 0)
    studio.put_tar(f"{COCO}/000001.tar", members[1:])
    check(manual, "hmr2_coco", "train", "has no image, only data.pyd", left=3)
    studio.put_tar(f"{COCO}/000001.tar", members[:1])
    check(manual, "hmr2_coco", "train", "has no data.pyd, only png", left=3)
    studio.put_tar(
        f"{COCO}/000001.tar", [members[0], (members[1][0], numpy1_pickle({"keypoints_2d": 1}))]
    )
    check(manual, "hmr2_coco", "train", "a dict instead of a list of people", left=3)


@pytest.mark.parametrize("value", ["text", None, np.zeros(3), [[1.0], [2.0, 3.0]], {}])
@pytest.mark.parametrize("key", ["body_pose", "scale", "center", "keypoints_2d", "has_betas"])
def test_nonsense_in_a_person(manual, key, value):
    change_person(manual, lambda person: person.update({key: value}))
    assert key in check(manual, "hmr2_coco", "train", key, left=3)


NONSENSE = (
    None,
    "x",
    [],
    {},
    -1,
    np.zeros((2, 2)),
    np.full((3, 24, 3), np.nan),
    [[1], [2, 3]],
    10**400,
    [None],
)


@pytest.mark.parametrize(
    ("name", "split", "file"),
    [
        ("threedpw", "test", "3DPW/sequenceFiles/test/downtown_arguing_00.pkl"),
        ("emdb", "emdb1", "EMDB/P1/14_outdoor_climb/P1_14_outdoor_climb_data.pkl"),
    ],
)
def test_nonsense_anywhere_in_a_sequence(manual, name, split, file):
    """Whatever stands in place of an entry: it is read, or told in one line, but never a
    traceback."""
    path, source = manual / file, find(name)
    content = writable(path)
    refused = 0
    for part in (content, *(value for value in content.values() if isinstance(value, dict))):
        for key, value in list(part.items()):
            for nonsense in NONSENSE:
                part[key] = nonsense
                path.write_bytes(python2_pickle(content))
                try:
                    list(source.records(manual, split, source.report()))
                except InputError as error:
                    assert "\n" not in str(error)
                    refused += 1
            part[key] = value
    assert refused > 60


def test_a_person_that_lacks_a_key(manual):
    change_person(manual, lambda person: person.pop("betas"))
    check(manual, "hmr2_coco", "train", "person 0: has no betas", left=3)


class _Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_pickles_are_not_run(manual, tmp_path):
    bomb = pickle.dumps([_Bomb(tmp_path / "gone_off")], protocol=2)
    image = Studio(manual, None, 0).person((640, 480))
    picture = Studio(manual, None, 0).picture([image])
    Studio(manual, None, 0).put_tar(
        f"{COCO}/000001.tar", [("a.jpg", picture), ("a.data.pyd", bomb)]
    )
    check(manual, "hmr2_coco", "train", "nothing in it was run", left=3)
    (manual / "EMDB/P1/14_outdoor_climb/P1_14_outdoor_climb_data.pkl").write_bytes(bomb)
    (manual / "3DPW/sequenceFiles/train/courtyard_arguing_00.pkl").write_bytes(bomb)
    stream = io.BytesIO()
    np.save(stream, np.array([_Bomb(tmp_path / "gone_off")], dtype=object), allow_pickle=True)
    for name, split in (("emdb", "emdb1"), ("threedpw", "train")):
        source = find(name)
        with pytest.raises(InputError, match="nothing in it was run"):
            list(source.records(manual, split, source.report()))
    change_npz(
        manual / "hmr2_evaluation_data/3dpw_test.npz",
        gender=lambda _: np.array([_Bomb(tmp_path / "gone_off")] * 2, dtype=object),
    )
    source = find("hmr2_eval")
    with pytest.raises(InputError, match="nothing in it was run"):
        list(source.records(manual, "threedpw_test", source.report()))
    assert not (tmp_path / "gone_off").exists()


def test_image_names_do_not_lead_out_of_the_folder(manual):
    secret = manual / "secret.jpg"
    shutil.copy(manual / "h36m/images/S9_Directions_1.60457274_000001.jpg", secret)
    for name in ("../secret.jpg", str(secret)):
        change_npz(
            manual / "h36m/h36m_valid_protocol2.npz",
            imgname=lambda names, name=name: np.array([name.encode(), names[1]]),
        )
        check(manual, "human36m", "p2", "would lie outside", left=1)


def test_a_mask_that_is_not_there(manual):
    path = manual / COCO / "000000.tar"
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    people = writable(members[1][1])
    people[0]["extra_info"]["detection_npz_idx"] = 7
    members[1] = (members[1][0], numpy1_pickle(people))
    Studio(manual, None, 0).put_tar(f"{COCO}/000000.tar", members)
    check(manual, "hmr2_coco", "train", "names mask 7 of 2", left=3)


def test_a_camera_that_is_none(manual):
    change_pickle(
        manual / "EMDB/P2/20_outdoor_walk/P2_20_outdoor_walk_data.pkl",
        lambda content: content["camera"]["extrinsics"].__setitem__((1, 0), 5.0),
        numpy1_pickle,
    )
    source = find("emdb")
    with pytest.raises(InputError, match="the camera of frame 1 is not a rotation"):
        list(source.records(manual, "emdb2", source.report()))
