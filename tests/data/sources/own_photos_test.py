"""A folder of own photos: turned and odd images, OpenPose's files, fits of our own making, and what
is said when parts do not fit."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from smpl_jax.keypoints import BODY44

from genhmr_jax.data.sources import MissingError, find
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError
from support.fakes import fake_people

POINTS = np.concatenate(
    [np.random.default_rng(0).uniform([60, 50], [140, 250], (23, 2)), np.full((23, 1), 0.9)], -1
)


def put(folder, name: str = "a.jpg", size=(200, 300), exif: int = 1, mode: str = "RGB", **files):
    """A photo whose upper left quarter is bright, and JSON files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[: size[1] // 2, : size[0] // 2] = 200
    image, tags = Image.fromarray(pixels), Image.Exif()
    tags[0x0112] = exif
    image.convert(mode).save(folder / name, **({"exif": tags} if name.endswith("jpg") else {}))
    for stem, content in files.items():
        (folder / f"{stem}.json").write_text(json.dumps(content))


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def read(manual, skip_bad: bool = False):
    source = find("own_photos")
    report = source.report(skip_bad)
    return list(source.records(manual, "train", report)), report


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "own_photos" / "train"


def test_keypoints_alone(tmp_path, folder):
    put(folder, keypoints={"a": POINTS.tolist()})
    ((record,), _) = read(tmp_path)
    assert np.array_equal(pixels_of(record["image"]), pixels_of((folder / "a.jpg").read_bytes()))
    assert b"Exif" not in record["image"] and record["image_size"].tolist() == [200, 300]
    assert (
        record["has_pose"]
        == record["has_betas"]
        == record["has_intrinsics"]
        == record["has_translation"]
        == 0
    )
    assert (record["keypoints2d"][:, 2] > 0).sum() == 21  # all but the finger tips
    low, high = POINTS[:, :2].min(0), POINTS[:, :2].max(0)
    np.testing.assert_allclose(
        record["box"][2:] - record["box"][:2], 1.2 * (high - low).max(), rtol=1e-5
    )


def test_photos_become_upright(tmp_path, folder):
    """A camera held upright stores its picture on the side: the keypoints are those of the upright
    picture."""
    put(
        folder,
        size=(300, 200),
        exif=6,
        keypoints={"a": POINTS.tolist()},
        boxes={"a": [10, 20, 150, 290]},
    )
    ((record,), _) = read(tmp_path)
    assert record["image_size"].tolist() == [200, 300] and record["box"].tolist() == [
        10,
        20,
        150,
        290,
    ]
    pixels = np.asarray(Image.open(io.BytesIO(record["image"])))
    assert (
        pixels.shape == (300, 200, 3) and pixels[10, 190].min() > 180 and pixels[290, 10].max() < 20
    )  # turned clockwise


def test_unusual_images_become_jpeg(tmp_path, folder):
    put(folder, "a.png", mode="RGBA", keypoints={"a": POINTS.tolist(), "b": POINTS.tolist()})
    put(folder, "b.webp")
    for record in read(tmp_path)[0]:
        assert Image.open(io.BytesIO(record["image"])).format == "JPEG" and record[
            "image_size"
        ].tolist() == [200, 300]


def test_openpose_files_beside_the_photos(tmp_path, folder):
    flat = np.tile([100.0, 120.0, 0.5], 25)
    flat[[12, 13]] = [30, 40]  # the right wrist is number 4
    put(folder, a_keypoints={"people": [{"pose_keypoints_2d": flat.tolist()}]})
    ((record,), _) = read(tmp_path)
    known = record["keypoints2d"][:, 2] > 0
    assert known.sum() == 21 and record["keypoints2d"][
        BODY44.index("openpose_right_wrist")
    ].tolist() == [30, 40, 0.5]


def test_what_recover_wrote_is_a_fit(tmp_path, folder):
    put(folder)
    people = fake_people(
        2,
        keypoints2d=np.stack([POINTS] * 2),
        keypoint_names=np.array(DETECTED),
        image_size=np.array([200, 300]),
    )
    (folder / "fits").mkdir()
    people.save(folder / "fits" / "a.npz")
    records, _ = read(tmp_path)
    assert len(records) == 2
    for i, record in enumerate(records):
        assert (
            record["has_pose"]
            == record["has_betas"]
            == record["has_translation"]
            == record["has_intrinsics"]
            == 1
        )
        np.testing.assert_allclose(record["body_pose"], people.body_pose[i])
        np.testing.assert_allclose(record["translation"], people.translation[i])
        np.testing.assert_allclose(
            record["intrinsics"][[0, 0, 1], [0, 2, 2]], [people.focal_length, 100, 150]
        )
    (folder / "cameras.json").write_text(
        json.dumps({"a": {"focal": 2 * float(people.focal_length)}})
    )
    for record in read(tmp_path)[0]:  # under another camera the fit's translation is another
        assert (
            record["has_translation"] == 0 and record["has_intrinsics"] == record["has_pose"] == 1
        )


def test_recover_leaves_out_whom_it_hardly_sees(tmp_path, folder):
    """The second of three people has too few keypoints for a fit: the others keep theirs."""
    three = np.stack([POINTS, POINTS + [20, 5, 0], POINTS + [-15, 0, 0]]).astype(np.float32)
    three[1, 3:, 2] = 0
    put(folder, keypoints={"a": three.tolist()})
    people = fake_people(
        2,
        keypoints2d=three[[2, 0]],
        keypoint_names=np.array(DETECTED),
        body_pose=np.array([[0.2] * 69, [0.1] * 69]),
    )
    (folder / "fits").mkdir()
    people.save(folder / "fits" / "a.npz")
    records, _ = read(tmp_path)
    assert [record["has_pose"] for record in records] == [1, 0, 1]
    assert records[0]["body_pose"][0] == np.float32(0.1) and records[2]["body_pose"][
        0
    ] == np.float32(0.2)


def fit(folder, **changes):
    (folder / "fits").mkdir()
    arrays = {
        "global_orient": np.zeros((1, 3)),
        "body_pose": np.zeros((1, 69)),
        "betas": np.zeros((1, 10)),
    } | changes
    np.savez(folder / "fits" / "a.npz", **{k: v for k, v in arrays.items() if v is not None})


ONE = {"a": POINTS.tolist()}
TWO = {"a": [POINTS.tolist()] * 2}
ALONE = np.array([[1, 1, 1]] + [[1, 1, 0]] * 22)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda f: put(f),
            "a.jpg: has no keypoints: neither keypoints.json nor a_keypoints.json nor a fit",
        ),
        (lambda f: put(f, keypoints={"b": POINTS.tolist()}), "a.jpg: no keypoints given for 'a'"),
        (
            lambda f: put(f, keypoints={"a": (POINTS + [500, 0, 0]).tolist()}),
            "person 1 of 1 given: 0 keypoints are known",
        ),
        (
            lambda f: put(f, keypoints=TWO, boxes={"a": [1, 2, 30, 40]}),
            "1 boxes but keypoints of 2 people were given",
        ),
        (lambda f: (put(f, keypoints=TWO), fit(f)), "has 1 fits but keypoints of 2 people"),
        (
            lambda f: (put(f, keypoints=ONE), fit(f, betas=np.zeros((1, 16)))),
            r"a.npz: betas has shape \(1, 16\)",
        ),
        (lambda f: (put(f, keypoints=ONE), fit(f, betas=None)), "a.npz: has no betas"),
        (
            lambda f: (put(f, keypoints=ONE), fit(f, body_pose=np.full((1, 69), 90.0))),
            "wrong units: a joint turns",
        ),
        (
            lambda f: (put(f, keypoints=ONE), (f / "a.jpg").write_bytes(b"x")),
            "a.jpg: is not an image",
        ),
        (
            lambda f: put(f, keypoints={"a": (POINTS * [1, 1, 0]).tolist()}),
            "own_photos: /.*a.jpg: person 1 of 1 given: 0 key",
        ),
        (
            lambda f: put(f, keypoints={"a": (POINTS * ALONE).tolist()}),
            "1 keypoints are known inside the photo, 2 are needed",
        ),
        (
            lambda f: put(f, keypoints={"a": (POINTS / [200, 300, 1]).tolist()}),
            "a.jpg: the keypoints are not in px",
        ),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, folder, make, said):
    make(folder)
    with pytest.raises(InputError, match=said):
        read(tmp_path)


def test_bad_photos_are_left_out_when_asked(tmp_path, folder):
    put(folder, keypoints={"b": POINTS.tolist()})
    put(folder, "b.jpg")
    records, report = read(tmp_path, skip_bad=True)
    assert [record["image_name"] for record in records] == ["b.jpg"]
    assert (
        len(report.listed) == 1
        and "own_photos: " in report.listed[0]
        and "a.jpg" in report.listed[0]
    )


def test_a_photo_with_nobody_stops_neither_the_build_nor_the_others(tmp_path, folder):
    """Neither an empty list nor null, nor a photo of COCO's without annotations, is a fault."""
    for content in ({"a": [], "b": POINTS.tolist()}, {"a": None, "b": POINTS.tolist()}):
        put(folder, keypoints=content)
        put(folder, "b.jpg")
        records, report = read(tmp_path)
        assert [record["image_name"] for record in records] == ["b.jpg"] and not report.listed
    images = [{"id": 0, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    annotation = {"image_id": 1, "category_id": 1, "keypoints": POINTS[:17].ravel().tolist()}
    put(folder, keypoints={"images": images, "annotations": [annotation]})
    records, report = read(tmp_path)
    assert [record["image_name"] for record in records] == ["b.jpg"] and not report.listed


def test_one_bad_person_does_not_cost_the_others(tmp_path, folder):
    three = np.stack([POINTS, POINTS * [1, 1, 0], POINTS + [5, 0, 0]])
    put(folder, keypoints={"a": three.tolist()})
    records, report = read(tmp_path, skip_bad=True)
    assert [record["person"] for record in records] == [0, 2] and len(report.listed) == 1
    assert "person 2 of 3 given" in report.listed[0]


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0not a header", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + bytes(range(200))]
)
def test_damaged_exif_costs_no_photo(tmp_path, folder, exif):
    put(folder, keypoints={"a": POINTS.tolist()})
    with Image.open(folder / "a.jpg") as image:
        image.save(folder / "a.jpg", exif=exif)
    ((record,), _) = read(tmp_path)
    assert record["image_size"].tolist() == [200, 300] and pixels_of(record["image"]).shape == (
        300,
        200,
        3,
    )


def test_without_any_photo_it_says_what_to_do(tmp_path):
    with pytest.raises(MissingError, match="own_photos/train/keypoints.json"):
        read(tmp_path)
