"""Bad input to `genhmr recover`: one line on stderr that names the file and the remedy, the other
photos done, nothing half-written."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from genhmr_jax import InputError, People
from genhmr_jax.cli import main
from support.fakes import fake_people, install_fake_recover, save_photo


@pytest.fixture
def calls(monkeypatch):
    return install_fake_recover(monkeypatch)


def recover(tmp_path, *arguments) -> int:
    return main.main(["recover", *map(str, arguments), "--out", str(tmp_path / "out")])


def only_line(capsys) -> str:
    """The one line on stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("genhmr: ") and "; " in lines[0]
    return lines[0]


def outputs(tmp_path) -> list[str]:
    return sorted(p.name for p in (tmp_path / "out").iterdir())


def truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])


BROKEN = {
    "gone.jpg": (lambda path: None, "no such file"),
    "text.jpg": (lambda path: path.write_text("hello"), "is not an image"),
    "half.jpg": (truncated, "truncated"),
    "dot.png": (lambda path: Image.new("RGB", (1, 1)).save(path), "1 x 1 px"),
    "wide.png": (lambda path: Image.new("1", (20_000, 30)).save(path), "20000 x 30 px"),
    "float.tif": (lambda path: Image.new("F", (40, 40)).save(path), "floating-point"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_photo_does_not_stop_the_others(tmp_path, calls, capsys, name):
    make, problem = BROKEN[name]
    make(tmp_path / name)
    good = [save_photo(tmp_path / "a.jpg"), save_photo(tmp_path / "z.jpg")]
    assert recover(tmp_path, good[0], tmp_path / name, good[1]) == 1
    line = only_line(capsys)
    assert line.startswith(f"genhmr: {tmp_path / name}: ") and problem in line
    assert outputs(tmp_path) == ["a.npz", "a_overlay.png", "z.npz", "z_overlay.png"]


def test_only_missing_photos_never_load_the_model(tmp_path, calls, capsys):
    assert recover(tmp_path, tmp_path / "gone.jpg") == 1
    assert "gone.jpg: no such file" in only_line(capsys)
    assert not calls.loaded and not (tmp_path / "out").exists()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "CMYK"])
def test_unusual_images_are_no_bad_input(tmp_path, calls, mode):
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    Image.new(mode, (60, 40)).save(path)
    assert recover(tmp_path, path) == 0
    assert calls.images[0].shape == (40, 60, 3) and calls.images[0].dtype == np.uint8


def test_nobody_in_the_picture(tmp_path, calls, capsys):
    calls.result = fake_people(0)
    assert recover(tmp_path, save_photo(tmp_path / "x.jpg")) == 1
    line = only_line(capsys)
    assert f"{tmp_path / 'x.jpg'}: nobody was found" in line and "--boxes" in line
    assert outputs(tmp_path) == []


def test_errors_of_the_model_name_the_photo(tmp_path, calls, capsys):
    photo = save_photo(tmp_path / "x.jpg")
    failures = {
        InputError(
            "box 0", "lies outside the image", "correct it"
        ): f"genhmr: {photo}: box 0: lies outside the image; correct it",
        ValueError(
            "keypoints hold NaN\nin row 3"
        ): f"genhmr: {photo}: keypoints hold NaN in row 3; correct the input",
        KeyError("bug"): (
            f"genhmr: {photo}: internal error (KeyError: 'bug'); set GENHMR_DEBUG=1 to see "
            f"where, and report it"
        ),
        MemoryError(): (
            f"genhmr: {photo}: does not fit into memory; scale the photo down or lower --hypotheses"
        ),
    }
    for failure, expected in failures.items():
        calls.failure = failure
        assert recover(tmp_path, photo) == 1
        assert only_line(capsys) == expected
        assert outputs(tmp_path) == []


def test_debugging_shows_the_traceback(tmp_path, calls, monkeypatch):
    monkeypatch.setenv("GENHMR_DEBUG", "1")
    calls.failure = KeyError("bug")
    with pytest.raises(KeyError):
        recover(tmp_path, save_photo(tmp_path / "x.jpg"))


def test_an_output_directory_that_cannot_be_one(tmp_path, calls, capsys):
    photo = save_photo(tmp_path / "x.jpg")
    (tmp_path / "out").write_text("a file")
    assert recover(tmp_path, photo) == 1
    assert (
        only_line(capsys)
        == f"genhmr: {tmp_path / 'out'}: is a file, not a directory; choose another --out"
    )
    assert main.main(["recover", str(photo), "--out", str(tmp_path / "out" / "inner")]) == 1
    assert "inner: cannot be written to" in only_line(capsys)
    assert not calls.loaded, "checked before the model is loaded"


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_an_output_directory_without_permission(tmp_path, calls, capsys):
    (tmp_path / "out").mkdir(mode=0o500)
    assert recover(tmp_path, save_photo(tmp_path / "x.jpg")) == 1
    assert "out: cannot be written to (Permission denied); choose another --out" in only_line(
        capsys
    )


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, calls, capsys, monkeypatch):
    def disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    assert recover(tmp_path, save_photo(tmp_path / "x.jpg")) == 1
    assert "No space left on device" in only_line(capsys)
    assert outputs(tmp_path) == []


def test_a_model_that_does_not_load(tmp_path, calls, capsys):
    photo = save_photo(tmp_path / "x.jpg")
    calls.load_failure = InputError(
        "some/model", "does not fit its config", "train it again or give another --checkpoint"
    )
    assert recover(tmp_path, photo) == 1
    assert only_line(capsys) == (
        "genhmr: some/model: does not fit its config; train it again or give another --checkpoint"
    )
    calls.load_failure = FileNotFoundError(
        "SMPL_NEUTRAL.pkl: no such file; get it from https://smpl.is.tue.mpg.de"
    )
    assert recover(tmp_path, photo, "--body", "SMPL_NEUTRAL.pkl") == 1
    assert only_line(capsys).startswith(
        "genhmr: --body SMPL_NEUTRAL.pkl: SMPL_NEUTRAL.pkl: no such file; get it from"
    )
    calls.load_failure = InputError("fat", "no such body", "choose neutral")
    assert recover(tmp_path, photo, "--body", "fat") == 1
    assert only_line(capsys) == "genhmr: fat: no such body; choose neutral"


@pytest.mark.parametrize("flag", ["--boxes", "--keypoints"])
def test_a_json_file_that_is_missing_or_broken(tmp_path, calls, capsys, flag):
    photo = save_photo(tmp_path / "x.jpg")
    path = tmp_path / "given.json"
    assert recover(tmp_path, photo, flag, path) == 1
    assert str(path) in only_line(capsys)
    path.write_text("{not json")
    assert recover(tmp_path, photo, flag, path) == 1
    assert str(path) in only_line(capsys)
    assert not calls.images


def test_boxes_outside_the_image_and_keypoints_of_nan(tmp_path, calls, capsys):
    photo, path = save_photo(tmp_path / "x.jpg"), tmp_path / "given.json"
    path.write_text(json.dumps({"x": [[500, 500, 600, 600]]}))
    assert recover(tmp_path, photo, "--boxes", path) == 1
    assert "x.jpg" in (line := only_line(capsys)) and "outside" in line
    path.write_text(json.dumps({"x": [[[float("nan"), 5, 1.0]] * 23]}))
    assert recover(tmp_path, photo, "--keypoints", path) == 1
    assert "given.json" in only_line(capsys)
    assert not (tmp_path / "out" / "x.npz").exists()


def test_boxes_for_some_photos_only_and_of_another_number_than_keypoints(tmp_path, calls, capsys):
    a, b = save_photo(tmp_path / "a.jpg"), save_photo(tmp_path / "b.jpg")
    boxes, keypoints = tmp_path / "boxes.json", tmp_path / "keypoints.json"
    boxes.write_text(json.dumps({"a": [[5, 5, 30, 30], [20, 5, 50, 30]]}))
    assert recover(tmp_path, a, b, "--boxes", boxes) == 1
    assert f"{b}: no box given for 'b'; " in only_line(capsys)
    assert outputs(tmp_path) == ["a.npz", "a_overlay.png"]
    keypoints.write_text(json.dumps({"a": [[[10, 10, 0.9]] * 17]}))
    assert recover(tmp_path, a, "--boxes", boxes, "--keypoints", keypoints) == 1
    assert f"{a}: 2 boxes but keypoints of 1 people were given" in only_line(capsys)
    assert len(calls.images) == 1


def test_results_are_whole_when_a_later_photo_fails(tmp_path, calls):
    (tmp_path / "b.jpg").write_text("broken")
    assert recover(tmp_path, save_photo(tmp_path / "a.jpg"), tmp_path / "b.jpg") == 1
    assert len(People.load(tmp_path / "out" / "a.npz")) == 2


def test_a_link_to_nothing_in_a_folder_is_an_error_of_its_own(tmp_path, calls, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    save_photo(folder / "a.jpg")
    (folder / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert recover(tmp_path, folder) == 1
    assert "link.jpg: no such file" in only_line(capsys)
    assert outputs(tmp_path) == ["a.npz", "a_overlay.png"]
