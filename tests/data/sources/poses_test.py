"""The pose sources: official layouts in, records out, and what is said when a file is broken."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from genhmr_jax.data.sources import SOURCES, MissingError, find, motion
from genhmr_jax.data.sources.reading import read_pickle
from genhmr_jax.io.errors import InputError
from support import pose_fixtures
from support.pose_fixtures import records

POSE_SOURCES = [name for name, source in SOURCES.items() if source.kind == "poses"]


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    for name in pose_fixtures.NAMES:
        pose_fixtures.write(name, folder)
    return folder


@pytest.mark.parametrize(
    "name, split", [(name, split) for name in POSE_SOURCES for split in ("train", "val")]
)
def test_every_source_reads_its_release(releases, name, split):
    found, report = records(name, releases, split)
    assert found and not report.listed
    for record in found:
        assert (
            record["pose"].shape == (72,)
            and record["pose"].dtype == np.float32
            and record["betas"].shape == (10,)
        )
        assert (record["pose"][66:] == 0).all() or name == "aist"
        assert "/" in record["sequence"] and record["gender"] in ("neutral", "male", "female")
    assert len({(record["sequence"], int(record["frame"])) for record in found}) == len(found)


@pytest.mark.parametrize("name", POSE_SOURCES)
def test_a_missing_release_says_what_to_download(tmp_path, name):
    with pytest.raises(MissingError) as error:
        records(name, tmp_path, "train", skip_bad=True)
    assert name in str(error.value) and find(name).layout in str(error.value)
    (tmp_path / find(name).folder).mkdir()
    with pytest.raises(MissingError, match="MANUAL_DIR"):
        records(name, tmp_path, "train")
    with pytest.raises(InputError, match="has no split 'nothing'"):
        records(name, tmp_path, "nothing")


def test_amass(releases):
    found, _ = records("amass", releases, "train")
    by_clip = {}
    for record in found:
        by_clip.setdefault(record["sequence"], []).append(record)
    assert sorted(by_clip) == [
        "BMLrub/rub001/0000_treadmill_norm_poses",
        "CMU/01/01_01_poses",
        "CMU/02/02_01_poses",
        "GRAB/s1/cup_drink_poses",
    ]
    # 20 % of 100 frames is cut at each end, then every 10th is kept.
    assert [int(record["frame"]) for record in by_clip["CMU/01/01_01_poses"]] == [
        20,
        30,
        40,
        50,
        60,
        70,
    ]
    assert [int(record["frame"]) for record in by_clip["CMU/02/02_01_poses"]] == [8, 18, 28]
    assert {clip.split("/")[0]: rows[0]["gender"] for clip, rows in by_clip.items()} == {
        "CMU": "female",
        "BMLrub": "female",
        "GRAB": "neutral",
    }
    assert by_clip["CMU/01/01_01_poses"][0]["gender"] == "male"
    with np.load(releases / "amass/CMU/01/01_01_poses.npz") as data:
        np.testing.assert_allclose(
            by_clip["CMU/01/01_01_poses"][1]["pose"][3:66], data["poses"][30, 3:66], rtol=1e-6
        )
        np.testing.assert_allclose(
            by_clip["CMU/01/01_01_poses"][1]["betas"], data["betas"][:10], rtol=1e-6
        )
        there = Rotation.from_rotvec(data["poses"][30, :3]).apply([0.3, 0.5, 0.7])
    here = Rotation.from_rotvec(by_clip["CMU/01/01_01_poses"][1]["pose"][:3]).apply([0.3, 0.5, 0.7])
    np.testing.assert_allclose(
        here, [there[0], there[2], -there[1]], atol=1e-6
    )  # what was up, z, is now y
    test, _ = records("amass", releases, "test")
    assert {record["sequence"].split("/")[0] for record in test} == {"SSM"} and test[0][
        "gender"
    ] == "male"


def test_the_sets_of_tokenhmr_have_its_weights():
    weights = find("tokenhmr_poses").weights
    assert len(weights) == 13
    np.testing.assert_allclose(sum(weights.values()), 1.0)
    assert weights["CMU"] == 0.12 and weights["MPI-Limits"] == weights["MOYO"] == 0.16


@pytest.mark.parametrize(
    "count, trim, every, kept",
    [
        (100, 0.2, 10, [20, 30, 40, 50, 60, 70]),
        (60, 0.1, 5, list(range(6, 54, 5))),
        (1, 0.2, 10, [0]),
        (2, 0.2, 10, [0]),
        (45, 0, 20, [0, 20, 40]),
    ],
)
def test_kept_frames(count, trim, every, kept):
    assert motion.kept_frames(count, trim, every).tolist() == kept


def test_moyo(releases):
    found, _ = records("moyo", releases, "train")
    assert [int(record["frame"]) for record in found] == list(range(6, 54, 5))
    file = next((releases / "moyo/mosh_smpl/train").iterdir())
    clip = read_pickle(file)
    np.testing.assert_allclose(found[2]["pose"][3:66], clip["body_pose"][16, :63], rtol=1e-6)
    np.testing.assert_allclose(found[2]["betas"], clip["betas"][16], rtol=1e-6)


def test_tokenhmr_poses_have_no_root(releases):
    found, _ = records("tokenhmr_poses", releases, "train")
    assert [record["sequence"] for record in found] == ["CMU/01/01_01_poses"] * 12 + [
        "MOYO/yogi"
    ] * 8
    assert [int(record["frame"]) for record in found] == [*range(12), *range(8)]
    assert all((record["pose"][:3] == 0).all() for record in found)


def test_aist_leaves_out_what_its_authors_found_wrong(releases):
    found, _ = records("aist", releases, "train")
    assert {record["sequence"] for record in found} == {"AIST/gBR_sBM_cAll_d04_mBR0_ch01"}
    assert [int(record["frame"]) for record in found] == [0, 10, 20, 30, 40]


def spoil_amass(folder, change):
    file = folder / "amass/CMU/01/01_01_poses.npz"
    with np.load(file, allow_pickle=False) as data:
        arrays = {key: data[key] for key in data}
    np.savez(
        file,
        **{key: value for key, value in (arrays | change(arrays)).items() if value is not None},
    )
    return file


def break_frame(arrays, column, value):
    poses = arrays["poses"].copy()
    poses[40, column] = value
    return {"poses": poses}


@pytest.mark.parametrize(
    "change, message, lost",
    [
        (lambda a: {"poses": None}, "has no poses", 6),
        (lambda a: {"poses": a["poses"][:, :72]}, r"poses has shape \(100, 72\)", 6),
        (lambda a: {"poses": a["poses"][:0], "trans": a["trans"][:0]}, "empty sequence", 6),
        (lambda a: {"poses": np.rad2deg(a["poses"])}, "wrong units", 6),
        (lambda a: {"betas": np.zeros(3)}, "betas has 3 numbers", 6),
        (lambda a: break_frame(a, 5, np.nan), "frame 40: pose has numbers that are not finite", 1),
        (lambda a: break_frame(a, 1, np.nan), "frame 40: pose has numbers that are not finite", 1),
        (lambda a: break_frame(a, 2, 1e300), "frame 40: pose has numbers that are not finite", 1),
    ],
)
def test_bad_amass(tmp_path, change, message, lost):
    pose_fixtures.write("amass", tmp_path)
    good, _ = records("amass", tmp_path, "train")
    spoil_amass(tmp_path, change)
    with pytest.raises(InputError, match=message) as error:
        records("amass", tmp_path, "train")
    assert "amass: " in str(error.value) and "CMU/01/01_01_poses.npz" in str(error.value)
    rest, report = records("amass", tmp_path, "train", skip_bad=True)
    assert len(rest) == len(good) - lost and report.listed and "01_01_poses" in report.summary()


@pytest.mark.parametrize(
    "name, file",
    [
        ("aist", "aist_plusplus/motions/gBR_sBM_cAll_d04_mBR0_ch01.pkl"),
        ("moyo", "moyo/mosh_smpl/train/"),
    ],
)
def test_half_a_pickle_and_a_trojan(tmp_path, name, file):
    pose_fixtures.write(name, tmp_path)
    path = tmp_path / file
    path = next(path.iterdir()) if path.is_dir() else path
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=path.name):
        records(name, tmp_path, "train")
    path.write_bytes(b"cos\nsystem\n(S'touch trojan'\ntR.")
    with pytest.raises(InputError, match="requests os.system"):
        records(name, tmp_path, "train")
    path.unlink()
    if name == "aist":
        with pytest.raises(InputError, match="is absent, though splits/pose_train.txt names it"):
            records(name, tmp_path, "train")
