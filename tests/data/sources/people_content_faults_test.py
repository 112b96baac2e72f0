"""Releases of people whose files hold something else than they should: every fault names dataset,
file and record, and with skip_bad is listed while the rest is read."""

import io
import pickle
import shutil
import tarfile

import numpy as np
import pytest

from genhmr_jax.data.sources import find
from genhmr_jax.io.errors import InputError
from support.broken_releases import (
    COCO,
    change_npz,
    change_person,
    change_pickle,
    check,
    writable,
)
from support.people_studio import Studio
from support.python2_pickles import numpy1_pickle, python2_pickle


@pytest.fixture
def manual(whole, tmp_path):
    """A copy to break."""
    return shutil.copytree(whole, tmp_path / "manual")


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
