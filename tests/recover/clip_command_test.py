"""`genhmr recover CLIP` and `genhmr view`: flags, files, interruptions; the clip is made up."""

import dataclasses
import shutil
import types

import numpy as np
import pytest
from PIL import ExifTags, Image

from genhmr_jax.cli import main
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.video import open_clip
from genhmr_jax.recover import clip_command, clip_pictures, command
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.clip_recovery import ClipOptions
from genhmr_jax.recover.motions import in_world, motions_of_clip
from genhmr_jax.recover.photo import RecoverOptions
from support.export_motions import clip as made_up_clip
from support.export_motions import motion, posed
from support.fakes import fake_people, save_photo

FRAMES, SIZE = 6, (64, 48)


@pytest.fixture(scope="module")
def body():
    return load_body("lite")


@pytest.fixture(scope="module")
def found(body) -> Clip:
    made = made_up_clip([motion(1, FRAMES), motion(2, FRAMES, absent=(4, 5))], body)
    return dataclasses.replace(
        made,
        frame_index=np.arange(FRAMES),
        image_size=np.array(SIZE),
        focal_length=80.0,
        principal_point=(32, 24),
    )


@pytest.fixture
def frames(tmp_path):
    folder = tmp_path / "walk"
    folder.mkdir()
    for number in range(FRAMES):
        shade = np.full((*SIZE[::-1], 3), 40 * number, np.uint8)
        Image.fromarray(shade).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def result(monkeypatch, body, found):
    """What the made-up model finds in every clip; a test may change it."""
    answer = types.SimpleNamespace(clip=found)
    recoverer = types.SimpleNamespace(body=body)
    monkeypatch.setattr(
        command, "load", lambda args, one_photo=False: (recoverer, RecoverOptions())
    )

    def recover(source, recoverer, options, *, body_model, tables, progress, masks):
        count = len(answer.clip.times)
        tables.frames.append({"people": np.ones(count, np.int32)})
        tables.frames.note(complete=count == FRAMES)
        progress(count, count)
        return answer.clip

    monkeypatch.setattr(clip_command, "recover_clip", recover)
    return answer


def run(tmp_path, *arguments) -> int:
    return main.main(["recover", *map(str, arguments), "--out", str(tmp_path / "out")])


def outputs(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_a_clip_has_its_files(tmp_path, frames, result, capsys):
    assert run(tmp_path, frames, "--clip", "--page", "--save", "glb,bvh,csv") == 0
    assert "walk: 2 people in 6 frames" in capsys.readouterr().out
    expected = ["walk.csv", "walk.glb", "walk.npz", "walk_1.bvh", "walk_2.bvh", "walk_page.html"]
    found = outputs(tmp_path)
    assert [name for name in found if "overlay" not in name] == expected
    assert any(name in ("walk_overlay.mp4", "walk_overlay_frames") for name in found)
    saved = Clip.load(tmp_path / "out" / "walk.npz")
    np.testing.assert_array_equal(saved.body_pose, result.clip.body_pose)


def test_without_pyav_the_pictures_are_files(tmp_path, frames, result, monkeypatch):
    def missing(path, size, fps):
        raise InputError(path, "videos need PyAV", "pip install genhmr_jax[video]")

    monkeypatch.setattr(clip_pictures, "VideoWriter", missing)
    assert run(tmp_path, frames, "--clip") == 0
    pictures = sorted((tmp_path / "out" / "walk_overlay_frames").iterdir())
    assert len(pictures) == FRAMES
    drawn, before = (np.asarray(Image.open(p)) for p in (pictures[0], frames / "0.png"))
    assert drawn.shape == before.shape and (drawn != before).any()


def test_an_interrupted_clip_keeps_its_tables(tmp_path, frames, result, capsys):
    cut = {
        name: value[:4] if Clip.shapes[name] == ("F",) else value[:, :4]
        for name, value in result.clip.arrays().items()
        if Clip.shapes[name][:2] == ("P", "F") or Clip.shapes[name] == ("F",)
    }
    result.clip = dataclasses.replace(result.clip, **cut)
    (other := tmp_path / "run").mkdir()
    shutil.copy(frames / "0.png", other)
    assert run(tmp_path, frames, other, "--clip", "--no-overlay") == 130
    assert "--resume" in capsys.readouterr().err
    assert outputs(tmp_path) == ["walk.npz", "walk_partial"]  # and nothing of the second clip


def test_resuming_another_clip_is_an_error(tmp_path, frames, result, capsys):
    test_an_interrupted_clip_keeps_its_tables(tmp_path, frames, result, capsys)
    assert run(tmp_path, frames, "--clip", "--no-overlay", "--resume", "--end", "0.1") == 1
    line = capsys.readouterr().err
    assert "walk_partial" in line and "another clip, or with other options" in line


def test_nobody_is_an_error_and_leaves_nothing(tmp_path, frames, result, capsys):
    nobody = {
        name: value[:0]
        for name, value in result.clip.arrays().items()
        if Clip.shapes[name][:1] == ("P",)
    }
    result.clip = dataclasses.replace(result.clip, **nobody)
    assert run(tmp_path, frames, "--clip") == 1
    assert "nobody was found for long enough" in capsys.readouterr().err
    assert outputs(tmp_path) == []


@pytest.mark.parametrize(
    "flags, problem",
    [
        (["--trace"], "--trace is for photos"),
        (["--hypotheses", "3"], "--hypotheses is for photos"),
        (["--save", "obj"], "--save obj is no format of clips"),
        (["--fps", "25", "--start", "9"], "no frame from 9 s"),
    ],
)
def test_flags_that_do_not_go_with_a_clip(tmp_path, frames, result, capsys, flags, problem):
    assert run(tmp_path, frames, "--clip", *flags) == 1
    assert problem in capsys.readouterr().err.replace(": ", " ")


def test_masks_are_of_one_clip(tmp_path, frames, result, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in ("0.png", "3.png"):
        Image.fromarray(np.full(SIZE[::-1], 1, np.uint8)).save(masks / name)
    flags = ["--clip", "--masks", masks, "--no-overlay"]
    assert run(tmp_path, frames, *flags) == 0
    assert outputs(tmp_path) == ["walk.npz"]
    photo = save_photo(tmp_path / "a.png")
    assert run(tmp_path, frames, photo, *flags) == 1
    assert "--masks: is one folder, but there are several clips, or photos too" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("flags", [["--height", "1.8"], ["--world"], ["--save", "bvh"]])
def test_flags_that_do_not_go_with_a_photo(tmp_path, result, capsys, flags):
    assert run(tmp_path, save_photo(tmp_path / "a.png"), *flags) == 1
    assert flags[0] in capsys.readouterr().err


def test_a_moving_camera_has_no_world(tmp_path, frames, result, capsys):
    """Only the files that need the world are missing, and --resume writes them in other axes."""
    result.clip = dataclasses.replace(
        result.clip, camera_moves=True, world_rotation=None, world_translation=None
    )
    flags = [frames, "--clip", "--save", "csv", "--no-overlay"]
    assert run(tmp_path, *flags, "--world") == 1
    line = capsys.readouterr().err
    assert "the files of --save are not written: the camera moves" in line and "--resume" in line
    assert outputs(tmp_path) == ["walk.npz", "walk_partial"]
    assert run(tmp_path, *flags, "--resume") == 0
    assert outputs(tmp_path) == ["walk.csv", "walk.npz"]


def test_world_is_of_the_files_of_save(tmp_path, frames, result, capsys):
    assert run(tmp_path, frames, "--clip", "--world") == 1
    assert "--world: changes only the files of --save" in capsys.readouterr().err


def test_the_focal_length_of_exif_counts_for_a_folder_too(tmp_path, frames, result, capsys):
    exif = Image.Exif()
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.FocalLengthIn35mmFilm: 26}
    for path in frames.iterdir():
        Image.open(path).save(path, exif=exif)
    source = open_clip(frames)
    assert source.focal35 == 26 and ClipOptions().of(source).photo.focal35 == 26
    own = ClipOptions(photo=RecoverOptions(focal35=50))
    assert own.of(source).photo.focal35 == 50
    assert run(tmp_path, frames, "--clip", "--no-overlay") == 0
    assert "px (EXIF) ->" in capsys.readouterr().out


@pytest.mark.parametrize("change", ["rate", "picture"])
def test_resuming_other_times_or_pictures_is_an_error(tmp_path, frames, result, capsys, change):
    test_an_interrupted_clip_keeps_its_tables(tmp_path, frames, result, capsys)
    if change == "picture":
        save_photo(frames / "2.png")
    flags = ["--fps", "12"] if change == "rate" else []
    assert run(tmp_path, frames, "--clip", "--no-overlay", "--resume", *flags) == 1
    assert "another clip, or with other options" in capsys.readouterr().err


def test_folders_keep_their_whole_names(tmp_path, frames, result, monkeypatch):
    """A dot in the name of a folder starts no suffix, and `.` has the name of the folder."""
    for name in ("take.1", "take.2"):
        shutil.copytree(frames, tmp_path / name)
    assert run(tmp_path, tmp_path / "take.1", "--clip", "--no-overlay") == 0
    monkeypatch.chdir(tmp_path / "take.2")
    assert run(tmp_path, ".", "--clip", "--no-overlay") == 0
    assert outputs(tmp_path) == ["take.1.npz", "take.2.npz"]


def test_world_motions_have_the_joints_of_the_world(found, body):
    turned = in_world(motions_of_clip(found), found, body)
    for person, moved in enumerate(turned):
        expected = found.joints[person] @ found.world_rotation.T + found.world_translation
        joints, _ = posed(moved, body)
        np.testing.assert_allclose(joints[moved.present], expected[moved.present], atol=2e-5)


def test_pages_of_results(tmp_path, found, frames, capsys):
    found.save(tmp_path / "walk.npz")
    assert main.main(["view", str(tmp_path / "walk.npz"), "--photo", str(frames)]) == 0
    with_pictures = (tmp_path / "walk_page.html").stat().st_size
    assert main.main(["view", str(tmp_path / "walk.npz"), "--out", str(tmp_path / "b.html")]) == 0
    assert (tmp_path / "b.html").stat().st_size < with_pictures


def test_view_refuses_what_does_not_belong_together(tmp_path, found, capsys):
    found.save(tmp_path / "walk.npz")
    photo = save_photo(tmp_path / "photo.png")
    assert main.main(["view", str(tmp_path / "walk.npz"), "--photo", str(tmp_path)]) == 1
    assert "60 x 40 px, the result is of 64 x 48 px" in capsys.readouterr().err
    fake_people(1).save(tmp_path / "people.npz")
    assert main.main(["view", str(tmp_path / "people.npz")]) == 1
    assert "give its body with --body" in capsys.readouterr().err
    assert main.main(["view", str(photo)]) == 1
    assert "cannot be read as a file of results" in capsys.readouterr().err
    assert not list(tmp_path.glob("*_page.html"))


def test_a_model_without_confidence_has_none_in_the_summary(found):
    assert "confidence 0." in clip_command.summary(found)
    unknown = dataclasses.replace(
        found, joint_confidence=np.full_like(found.joint_confidence, np.nan)
    )
    assert "confidence" not in clip_command.summary(unknown)
