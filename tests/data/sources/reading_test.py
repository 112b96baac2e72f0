"""Files of strangers: pickles of any age, npz of objects, tars; records; and what is said when they
are broken."""

import gc
import gzip
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from genhmr_jax.data.sources import SOURCES, MissingError, Report, find, reading, records
from genhmr_jax.io.errors import InputError
from support.python2_pickles import numpy1_pickle, python2_pickle


def objects(*entries):
    array = np.empty(len(entries), object)
    for i, entry in enumerate(entries):
        array[i] = entry
    return array


CONTENT = {
    "poses": [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    ],
    "genders": ["m", "f"],
    "valid": np.array([True, False]),
    "mixed": objects(np.arange(3), "café", None, {"a": 1.5}),
    "names": np.array(["left", "right_arm"]),
    "raw": np.array([b"ab", b"c"]),
    "big_endian": np.arange(3, dtype=">i4"),
    "scalar": np.float32(2.5),
    "nested": {"deep": (1, [2, {"x": np.array(3)}])},
    "sequence": "downtown_walking_00",
}


def assert_same(found, wanted):
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        for key in wanted:
            assert_same(found[key], wanted[key])
    elif isinstance(wanted, list | tuple) or (
        isinstance(wanted, np.ndarray) and wanted.dtype == object
    ):
        assert len(found) == len(wanted) and type(found) is type(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert_same(a, b)
    else:
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "write",
    [
        python2_pickle,
        numpy1_pickle,
        *(lambda value, p=p: pickle.dumps(value, protocol=p) for p in range(2, 6)),
    ],
)
def test_pickles_of_all_ages(write, tmp_path):
    content = CONTENT
    if (
        write is python2_pickle
    ):  # Python 2 wrote byte strings, and no arrays of them that are text now
        content = {
            key: value for key, value in CONTENT.items() if key not in ("mixed", "names")
        } | {"mixed": objects(np.arange(3), "é", None)}
    (tmp_path / "a.pkl").write_bytes(write(content))
    assert_same(reading.read_pickle(tmp_path / "a.pkl"), content)


class Trojan:
    def __reduce__(self):
        return os.system, ("touch trojan",)


class Getattr:
    def __reduce__(self):
        return getattr, (objects, "__globals__")


def loop():
    endless = [1]
    endless.append(endless)
    return endless


@pytest.mark.parametrize(
    "data, message",
    [
        (pickle.dumps({"a": Trojan()}), "requests (posix|nt).system"),
        (pickle.dumps([Getattr()]), "requests builtins.getattr"),
        (pickle.dumps(objects(Trojan())), "requests"),
        (pickle.dumps({"a": object()}), "not data"),
        (pickle.dumps(loop()), "contains itself"),
        (pickle.dumps(CONTENT)[:-40], "not a readable pickle|does not fit"),
        (b"", "not a readable pickle"),
        (b"<html>log in first</html>", "not a readable pickle"),
        # numpy.core.multiarray._reconstruct's state with more entries than it says
        (
            pickle.dumps(objects(1, 2, 3)).replace(b"K\x03\x85", b"K\x04\x85"),
            "does not fit its entries",
        ),
    ],
)
def test_bad_pickles_run_nothing(data, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        reading.read_pickle(data, "train/a.pkl")
    assert str(error.value).startswith("train/a.pkl: ")
    assert not list(tmp_path.iterdir())


def test_a_pickle_that_points_often_to_one_thing_is_read_once():
    node = [1.0]
    for level in range(60):
        node = [node, node]  # 2^level leaves, were they copied, as numpy.asarray does
        if level == 10:
            result = reading.read_pickle(pickle.dumps(node))
            assert result[0] is result[1]
    with pytest.raises(InputError, match="refers to the same parts too often"):
        reading.read_pickle(pickle.dumps(node))


def test_npz_with_arrays_of_objects(tmp_path):
    file = tmp_path / "eval.npz"
    arrays = {
        "scale": np.arange(4.0).reshape(2, 2),
        "extra": objects({"loss": 3.0}, {}),
        "gender": np.array("male"),
        "name": np.array(["a", "b"]),
    }
    np.savez_compressed(
        file,
        **arrays,
        info=np.array({"k": 1}, dtype=object),
        order=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    )
    found = reading.read_npz(
        file, ("scale", "extra", "gender", "info", "order"), optional=("name", "none")
    )
    assert set(found) == {"scale", "extra", "gender", "info", "order", "name"}
    np.testing.assert_array_equal(found["scale"], arrays["scale"])
    np.testing.assert_array_equal(found["order"], np.arange(6.0).reshape(2, 3))
    assert (
        found["extra"][0] == {"loss": 3.0}
        and found["info"].item() == {"k": 1}
        and found["gender"] == "male"
    )
    assert set(reading.read_npz(file.read_bytes(), ("name",))) == {"name"}


def test_bad_npz(tmp_path):
    file = tmp_path / "a.npz"
    np.savez(file, poses=np.zeros((100, 156)), trojan=objects(Trojan()))
    with pytest.raises(InputError, match=r"a.npz: has no betas, trans \(it has poses, trojan\)"):
        reading.read_npz(file, ("poses", "betas", "trans"))
    with pytest.raises(InputError, match="requests"):
        reading.read_npz(file, ("trojan",))
    whole = file.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 10):
        file.write_bytes(whole[:size])
        with pytest.raises(InputError, match="a.npz: is not a whole npz"):
            reading.read_npz(file, ("poses",))
    file.write_bytes(whole.replace(b"(100, 156)", b"(900, 156)"))
    with pytest.raises(
        InputError, match="a.npz: (has an array that cannot be read|is not a whole npz)"
    ):
        reading.read_npz(file, ("poses",))
    with pytest.raises(InputError, match="none.npz: cannot be read"):
        reading.read_npz(tmp_path / "none.npz", ("poses",))


KINDS = {
    "folder": tarfile.DIRTYPE,
    "symlink": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
}


def tar_of(*files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            if data in KINDS:
                info.type, info.linkname = KINDS[data], "/etc/passwd"
                archive.addfile(info)
            else:
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


SHARD = tar_of(
    ("s", "folder"),
    ("s/a.jpg", b"1" * 900),
    ("s/a.data.pyd", b"2" * 40),
    ("s/b.jpg", b"3"),
    ("./s/b.data.pyd", b"4"),
)


@pytest.mark.parametrize("data", [SHARD, gzip.compress(SHARD)])
def test_tar_samples(tmp_path, data):
    (tmp_path / "0.tar").write_bytes(data)
    found = list(reading.tar_samples(tmp_path / "0.tar"))
    assert [(key, list(fields)) for key, fields in found] == [
        ("s/a", ["jpg", "data.pyd"]),
        ("s/b", ["jpg", "data.pyd"]),
    ]
    assert found[0][1]["data.pyd"] == b"2" * 40


@pytest.mark.parametrize("cut", [0, 100, 512, 1000, 1536, 2048, 2560, 3072, 3584, 4000])
def test_half_a_tar_never_passes_for_a_whole_one(tmp_path, cut):
    (tmp_path / "0.tar").write_bytes(SHARD[:cut])
    with pytest.raises(InputError, match="0.tar: is not a whole tar"):
        list(reading.tar_samples(tmp_path / "0.tar"))
    (tmp_path / "1.tar").write_bytes(gzip.compress(SHARD)[:-20])
    with pytest.raises(InputError, match="1.tar: is not a whole tar"):
        list(reading.tar_samples(tmp_path / "1.tar"))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_damage_inside_a_compressed_tar_is_told_and_the_file_closed(tmp_path, kind, recwarn):
    data = np.random.default_rng(0).bytes(200_000)
    with tarfile.open(tmp_path / "0.tar", f"w:{kind}") as archive:
        info = tarfile.TarInfo("a.jpg")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    whole = (tmp_path / "0.tar").read_bytes()
    for place in range(20_000, len(whole) - 20, 30_000):
        (tmp_path / "0.tar").write_bytes(
            whole[:place]
            + bytes(byte ^ 0xFF for byte in whole[place : place + 50])
            + whole[place + 50 :]
        )
        with pytest.raises(InputError, match="0.tar: is not a whole tar"):
            list(reading.tar_samples(tmp_path / "0.tar"))
    gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_damage_inside_an_npz_is_told_and_the_file_closed(tmp_path, method, recwarn):
    stream = io.BytesIO()
    np.save(stream, np.random.default_rng(0).normal(size=2000))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("poses.npy", stream.getvalue())
    whole = (tmp_path / "a.npz").read_bytes()
    for place in range(50, len(whole) - 300, 500):
        (tmp_path / "a.npz").write_bytes(
            whole[:place]
            + bytes(byte ^ 0xFF for byte in whole[place : place + 50])
            + whole[place + 50 :]
        )
        with pytest.raises(InputError, match="a.npz: "):
            reading.read_npz(tmp_path / "a.npz", ("poses",))
    gc.collect()
    assert not [warning for warning in recwarn if issubclass(warning.category, ResourceWarning)]


@pytest.mark.parametrize(
    "files, message",
    [
        ([("../../a.jpg", b"1")], "not a plain file inside the shard"),
        ([("/tmp/a.jpg", b"1")], "not a plain file inside the shard"),
        ([("a.jpg", "symlink")], "not a plain file inside the shard"),
        ([("a.jpg", "link")], "not a plain file inside the shard"),
        ([("a.jpg", "device")], "not a plain file inside the shard"),
        ([("a.jpg", b"1"), ("a.jpg", b"2")], "a.jpg: is there twice"),
    ],
)
def test_tars_with_a_trick(tmp_path, files, message):
    (tmp_path / "0.tar").write_bytes(tar_of(*files))
    with pytest.raises(InputError, match=message):
        list(reading.tar_samples(tmp_path / "0.tar"))


PERSON = {"image_size": (640, 480), "box": (10, 20, 110, 220)}


def test_a_person_record_has_every_field_and_says_what_it_knows():
    record = records.person_record(
        "a",
        **PERSON,
        global_orient=np.ones(3),
        body_pose=np.zeros(69),
        betas=np.arange(16) / 10,
        gender=b"f",
    )
    assert set(record) == set(records.PERSON_FIELDS)
    for name, field in records.PERSON_FIELDS.items():
        if field.dtype in ("f4", "i4"):
            assert record[name].shape == field.shape and record[name].dtype == np.dtype(
                field.dtype
            ), name
    assert [
        float(record[f"has_{name}"])
        for name in ("pose", "betas", "translation", "intrinsics", "gender")
    ] == [1, 1, 0, 0, 1]
    assert (
        record["gender"] == "female" and record["image"] == b"" and not record["keypoints2d"].any()
    )
    np.testing.assert_allclose(record["betas"], np.arange(10) / 10, rtol=1e-6)
    empty = records.person_record("a", **PERSON)
    assert not any(empty[name] for name in records.PERSON_FIELDS if name.startswith("has_"))
    assert (
        records.person_record("a", **PERSON, body_pose=np.zeros(69))["has_pose"] == 0
    )  # half a pose is none
    assert records.person_record("a", **PERSON, betas=np.ones(10), has_betas=0)["has_betas"] == 0


POINTS2D = np.concatenate(
    [np.random.default_rng(0).uniform(100, 300, (44, 2)), np.ones((44, 1))], 1
)
POINTS3D = np.concatenate([np.random.default_rng(0).normal(0, 0.5, (44, 3)), np.ones((44, 1))], 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"betas": np.zeros(9)}, "betas has 9 numbers"),
        ({"body_pose": np.zeros(63)}, r"body_pose has shape \(63,\)"),
        ({"body_pose": np.full(69, np.nan)}, "body_pose has numbers that are not finite"),
        ({"body_pose": np.array(["a"] * 69)}, "body_pose is not made of numbers"),
        ({"body_pose": np.full(69, 30.0)}, "wrong units: a joint turns by 52 rad"),
        ({"keypoints3d": POINTS3D * [1000, 1000, 1000, 1]}, "wrong units: keypoints3d span"),
        ({"keypoints2d": POINTS2D / [640, 480, 1]}, "wrong units: all 2D keypoints"),
        ({"keypoints2d": -POINTS2D}, "negative confidences"),
        ({"translation": (100.0, 200.0, 4500.0)}, "wrong units: the person is 4506 metres away"),
        (
            {"intrinsics": np.diag([2.1, 2.1, 1])},
            "wrong units: the focal length is below 10 pixels",
        ),
        ({"box": (10, 20, 10, 220)}, "the box .* is empty"),
        ({"image_size": (0, 480)}, "image_size"),
    ],
)
def test_bad_person_records(change, message):
    with pytest.raises(InputError, match=f"shard.tar: x: .*{message}"):
        records.person_record("shard.tar: x", **(PERSON | change))


def test_good_units_pass():
    records.person_record(
        "a",
        **PERSON,
        keypoints2d=POINTS2D,
        keypoints3d=POINTS3D,
        translation=(0, 0, 40),
        intrinsics=np.diag([900, 900, 1]),
    )
    with pytest.raises(TypeError, match="not fields of a person record: bbox"):
        records.person_record("a", **PERSON, bbox=1)


def test_genders_in_all_spellings():
    spellings = ["m", b"male", np.array("male"), "b'male'", np.array(["Male"]), np.array(b"male")]
    assert {records.gender_name(text) for text in spellings} == {"male"}
    assert {records.gender_name(text) for text in ("neutral", "", "unknown", np.array([]))} == {
        "neutral"
    }


def test_report_lists_or_stops():
    report = Report(dataset="emdb")
    with pytest.raises(InputError, match="emdb: a.pkl: is broken; fix it"):
        report.bad("a.pkl", "is broken", "fix it")
    report = Report(skip_bad=True, dataset="emdb", layout="download EMDB")
    with report.skipping():
        raise InputError("b.pkl", "is broken", "fix it")
    report.bad("c.pkl", "is broken", "fix it")
    assert (
        report.summary()
        == "2 skipped:\n  emdb: b.pkl: is broken; fix it\n  emdb: c.pkl: is broken; fix it"
    )
    with pytest.raises(MissingError, match="emdb: x: .*download EMDB"), report.skipping():
        report.missing("x", "is not there")


def test_find_shows_the_nearest_names():
    assert find("amass").name == "amass"
    with pytest.raises(InputError, match="'?amas'? ?.*amass"):
        find("amas")
    for source in SOURCES.values():  # each says where to put it
        assert (
            source.folder in source.layout
            and source.licence
            and (source.citation or source.licence == "yours")
        ), source.name
