"""Which photos a folder has, what is passed over in it, and what results are called: never like a
file of the user."""

import pathlib

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.cli import main
from genhmr_jax.io.image_files import SUFFIXES, find_images, is_overlay, list_images, name_outputs
from genhmr_jax.io.images import read_image
from genhmr_jax.recover.report import save_png, would_overwrite
from support.fakes import install_fake_recover, save_photo


@pytest.fixture
def calls(monkeypatch):
    return install_fake_recover(monkeypatch)


def test_list_images_sorts_dedupes_and_skips_what_we_wrote(tmp_path):
    for name in ("b.jpg", "a.PNG", "notes.txt", ".hidden.jpg"):
        (tmp_path / name).write_bytes(b"")
    save_png(tmp_path / "a_overlay.png", np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "inner").mkdir()
    images, errors = list_images([tmp_path / "b.jpg", tmp_path])
    assert [(image.path.name, image.stem) for image in images] == [("b.jpg", "b"), ("a.PNG", "a")]
    assert not errors


def test_list_images_reports_every_bad_path_and_keeps_the_good(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    images, errors = list_images([tmp_path / "gone.jpg", tmp_path / "x.jpg", tmp_path / "empty"])
    assert [image.stem for image in images] == ["x"]
    assert [str(error) for error in errors] == [
        f"{tmp_path / 'gone.jpg'}: no such file or directory; check the path",
        f"{tmp_path / 'empty'}: no image in this directory; put images there "
        f"({' '.join(SUFFIXES)})",
    ]


def test_equal_stems_never_share_outputs(tmp_path):
    names = [
        "a/x.jpg",
        "b/x.jpg",
        "a/x.png",
        "a/y.jpg",
        "a/y.png",
        "a/y_png.jpg",
        "c/X.JPG",
        "d/a/x.jpg",
        "a/z.jpg",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"")
    images, _ = list_images([tmp_path / name for name in names])
    stems = [image.stem for image in images]
    assert len({stem.lower() for stem in stems}) == len(names)
    assert stems[3] == "y_jpg" and stems[-1] == "z"


def test_every_listed_suffix_is_read(tmp_path):
    """What Pillow writes under a suffix of the list comes back; jfif, avif and jp2 were passed over
    once."""
    formats = {
        ".jpe": "JPEG",
        ".jfif": "JPEG",
        ".jp2": "JPEG2000",
        ".j2k": "JPEG2000",
        ".jpx": "JPEG2000",
        ".jpf": "JPEG2000",
    }
    for suffix in SUFFIXES:
        image = Image.fromarray(np.full((40, 60, 3), 90, np.uint8))
        image.save(tmp_path / f"x{suffix[1:]}{suffix}", formats.get(suffix))
    images, errors = list_images([tmp_path])
    assert len(images) == len(SUFFIXES) and not errors
    for image in images:
        assert np.abs(read_image(image.path).astype(int) - 90).mean() < 4, image.path


def test_what_is_passed_over_is_named(tmp_path):
    for name in ("b.HEIC", "clip.mov", "x.npz", "boxes.json", "Thumbs.db", ".DS_Store", "._a.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    save_photo(tmp_path / "a.png")
    save_photo(tmp_path / "beach_overlay.png")
    (line,) = find_images([tmp_path]).notes()
    assert line.startswith(
        f"{tmp_path}: passed over b.HEIC, beach_overlay.png, clip.mov, sub/; convert"
    )
    for i in range(20):
        (tmp_path / f"raw{i}.dng").write_bytes(b"")
    assert "and 16 more" in find_images([tmp_path]).notes()[0]


def test_a_folder_of_photos_that_cannot_be_read_names_them(tmp_path):
    (tmp_path / "b.HEIC").write_bytes(b"x")
    (error,) = find_images([tmp_path]).errors
    assert "no image in this directory (there are b.HEIC); convert" in str(error)


def test_a_photo_that_is_named_is_read_whatever_it_is_called(tmp_path):
    photo = save_photo(tmp_path / "x_overlay.png")
    assert [image.path for image in list_images([photo])[0]] == [photo]


def test_our_overlays_are_known_by_their_mark(tmp_path):
    save_png(tmp_path / "ours_overlay.png", np.zeros((20, 20, 3), np.uint8))
    assert is_overlay(tmp_path / "ours_overlay.png") and not is_overlay(
        save_photo(tmp_path / "theirs_overlay.png")
    )


def test_no_output_is_an_input(tmp_path):
    """Photos, meshes, bodies, links and differences of upper and lower case: another name is found
    for the result."""
    (tmp_path / "photos").mkdir()
    for name in ("x.png", "x_overlay.png", "y.png", "Y.NPZ", "z.png", "z_3.obj", "w.png"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    files = [tmp_path / "photos" / f"{stem}.png" for stem in "xyzw"]
    inputs = [
        *files,
        *(tmp_path / "photos" / name for name in ("x_overlay.png", "Y.NPZ", "z_3.obj")),
    ]
    elsewhere = [
        image.stem for image in name_outputs(files, would_overwrite(tmp_path / "out", inputs))
    ]
    assert elsewhere == ["x", "y", "z", "w"]
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    for out in (tmp_path / "photos", tmp_path / "link"):
        assert [image.stem for image in name_outputs(files, would_overwrite(out, inputs))] == [
            "x_png",
            "y_png",
            "z_png",
            "w",
        ]


@pytest.mark.parametrize("named", [True, False])
def test_a_photo_called_like_a_result_is_never_overwritten(tmp_path, calls, capsys, named):
    save_photo(tmp_path / "x.png")
    theirs = save_photo(tmp_path / "x_overlay.png").read_bytes()
    photos = (
        [str(tmp_path / "x.png"), str(tmp_path / "x_overlay.png")] if named else [str(tmp_path)]
    )
    for _ in range(2):
        assert main.main(["recover", *photos, "--out", str(tmp_path)]) == 0
        assert (tmp_path / "x_overlay.png").read_bytes() == theirs
    assert is_overlay(tmp_path / "x_png_overlay.png") and (tmp_path / "x_png.npz").exists()
    assert named == (tmp_path / "x_overlay.npz").exists()


def test_a_name_that_no_file_system_knows_is_an_error_of_its_own(tmp_path):
    found = find_images([tmp_path / ("x" * 300), save_photo(tmp_path / "a.png"), "nul\0byte"])
    assert [path.name for path in found.files] == ["a.png"] and len(found.errors) == 2
    assert isinstance(found.files[0], pathlib.Path)


def test_a_name_near_the_longest_has_shorter_outputs(tmp_path, calls):
    for stem in ("n" * 250, "é" * 125, "n" * 249 + "m"):
        save_photo(tmp_path / f"{stem}.png")
    assert main.main(["recover", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    names = [path.name for path in (tmp_path / "out").iterdir()]
    assert len(names) == 6 and max(len(name.encode()) for name in names) < 230
