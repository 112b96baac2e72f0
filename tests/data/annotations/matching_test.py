"""Which record belongs to which photo: by the longest common end of the paths, by output names, by
numbers; never by guess."""

from pathlib import Path

import pytest

from genhmr_jax.data.annotations.matching import Matcher, PhotoName
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import name_outputs


def match(names, photos):
    """{photo: name of its record, None, or "ambiguous"}."""
    files = name_outputs([Path(photo) for photo in photos])
    matcher = Matcher([(PhotoName.of(name), name) for name in names], files)
    found = {}
    for photo, file in zip(photos, files, strict=True):
        try:
            found[photo] = matcher.find(file)
        except InputError as error:
            assert "name records by folder and file" in str(error)
            found[photo] = "ambiguous"
    return found


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "a.jpg",
        "photos/a.jpg",
        "photos/a",
        "/data/set/photos/a.jpg",
        r"C:\set\a.jpg",
        "./a.jpg",
        "a.png",
    ],
)
def test_one_photo(name):
    assert match([name, "b"], ["photos/a.jpg"]) == {"photos/a.jpg": name}


def test_two_cameras_with_the_same_file_names():
    photos = ["cam1/0001.jpg", "cam2/0001.jpg"]
    for names in (
        ["cam1/0001.jpg", "cam2/0001.jpg"],
        ["set/cam1/0001", "set/cam2/0001"],
        ["cam1_0001", "cam2_0001"],
    ):
        assert match(names, photos) == dict(zip(photos, names, strict=True))
    assert match(["0001"], photos) == {photo: "ambiguous" for photo in photos}
    assert match(["0001.jpg"], photos) == {photo: "ambiguous" for photo in photos}
    assert match([1], photos) == {photo: "ambiguous" for photo in photos}
    assert match(["cam1/0001.jpg"], photos) == {photos[0]: "cam1/0001.jpg", photos[1]: None}
    assert match(["cam1/0001.jpg", "cam2/0001.jpg"], ["cam3/0001.jpg"]) == {
        "cam3/0001.jpg": "ambiguous"
    }
    assert match(["cam1/0001.jpg", "cam2/0001.jpg"], photos[1:]) == {photos[1]: "cam2/0001.jpg"}


def test_numbers_find_photos_whatever_zeros_come_before():
    assert match([0, 139], ["0.jpg", "000000000139.jpg"]) == {"0.jpg": 0, "000000000139.jpg": 139}
    assert match(["139"], ["000000000139.jpg"]) == {"000000000139.jpg": "139"}
    assert match([0], ["000000000000.jpg"]) == {"000000000000.jpg": 0}
    assert match([12], ["frame_0012.jpg", "frame_0112.jpg"]) == {
        "frame_0012.jpg": 12,
        "frame_0112.jpg": None,
    }
    assert match([391895], ["COCO_val2014_000000391895.jpg"]) == {
        "COCO_val2014_000000391895.jpg": 391895
    }
    assert match(["12.jpg"], ["000012.png"]) == {"000012.png": "12.jpg"}
    assert match([5], ["photo5.jpg"]) == {"photo5.jpg": None}, (
        "a name that only ends in a digit is no number"
    )
    assert match(["0001", "1"], ["0001.jpg", "1.jpg"]) == {"0001.jpg": "0001", "1.jpg": "1"}


def test_names_with_dots():
    names = ["clip.v2.0001", "clip.v2.0002.jpg", "clip"]
    photos = ["clip.v2.0001.jpg", "clip.v2.0002.jpg", "clip.v2.jpg"]
    assert match(names, photos) == {photos[0]: names[0], photos[1]: names[1], photos[2]: None}


def test_the_whole_name_comes_before_the_stem():
    assert match(["a.png", "a.jpg"], ["a.jpg", "a.png"]) == {"a.jpg": "a.jpg", "a.png": "a.png"}
    assert match(["a"], ["a.jpg", "a.png"]) == {"a.jpg": "ambiguous", "a.png": "ambiguous"}
    assert match(["a_jpg", "a_png"], ["a.jpg", "a.png"]) == {"a.jpg": "a_jpg", "a.png": "a_png"}


def test_names_in_the_two_forms_of_unicode():
    assert match(["cafe\u0301"], ["caf\u00e9.jpg"]) == {"caf\u00e9.jpg": "cafe\u0301"}


def test_many_records_and_photos_are_matched_at_once():
    photos = [f"cam{i % 7}/{i:05d}.jpg" for i in range(3000)]
    assert list(match(photos, photos).values()) == photos
