"""`genhmr recover --masks`: what reaches the model, and one line for each thing that is wrong."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from genhmr_jax import People
from genhmr_jax.cli import main
from support.fakes import install_fake_recover, save_photo

WIDTH, HEIGHT = 60, 40


@pytest.fixture
def calls(monkeypatch):
    return install_fake_recover(monkeypatch)


def recover(tmp_path, *arguments) -> int:
    flags = ["--masks", str(tmp_path / "masks"), "--out", str(tmp_path / "out"), "--no-overlay"]
    return main.main(["recover", *flags, *map(str, arguments)])


def save_masks(tmp_path, name: str, *boxes) -> None:
    """An instance map with a rectangle for each person."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        pixels[y0:y1, x0:x1] = 10 * (i + 1)
    (tmp_path / "masks").mkdir(exist_ok=True)
    Image.fromarray(pixels).save(tmp_path / "masks" / name)


def test_masks_reach_the_model(tmp_path, calls, capsys):
    photo = save_photo(tmp_path / "x.jpg")
    save_masks(tmp_path, "x.png", (5, 5, 10, 6), (5, 10, 15, 30), (30, 5, 50, 35))
    assert recover(tmp_path, photo) == 0
    (masks,) = calls.masks
    assert calls.boxes == calls.keypoints == [None]
    assert masks.boxes[:, 0] == pytest.approx([4.5, 29])
    assert masks.parts[0].shape == (20, 10) and masks.parts[0].all()
    assert People.load(tmp_path / "out" / "x.npz").given_index.tolist() == [1, 2]
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "x.jpg: left out x.png, label 1 of 3: the mask is only 5 x 1 px" in error


def test_most_people(tmp_path, calls, capsys):
    save_masks(tmp_path, "x.png", (5, 10, 15, 30), (30, 5, 50, 35))
    assert recover(tmp_path, save_photo(tmp_path / "x.jpg"), "--max-people", 1) == 0
    assert len(calls.masks[0]) == 1 and calls.options[0].max_people is None
    assert "1 of 2 given people beyond --max-people 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: save_masks(path, "y.png", (5, 5, 20, 30)), "no mask given for 'x'"),
        (lambda path: save_masks(path, "x.png"), "masks has nobody for this photo"),
        (
            lambda path: save_masks(path, "x.png", (5, 5, 9, 6)),
            "x.jpg: nobody is left: x.png, label 1 of 1: the mask is only 4 x 1 px",
        ),
    ],
)
def test_photos_without_a_usable_mask(tmp_path, calls, capsys, write, said):
    photos = [save_photo(tmp_path / f"{name}.jpg") for name in "xz"]
    write(tmp_path)
    save_masks(tmp_path, "z.png", (5, 5, 30, 30))
    assert recover(tmp_path, *photos) == 1
    output = capsys.readouterr()
    assert output.err.count("\n") == 1 and said in output.err
    assert "z.jpg: 1 person" in output.out, "the other photo is done"


@pytest.mark.parametrize(("flag", "value"), [("--boxes", "1,2,30,40"), ("--keypoints", "k.json")])
def test_what_cannot_be_combined(tmp_path, calls, capsys, flag, value):
    save_masks(tmp_path, "x.png", (5, 5, 30, 30))
    assert recover(tmp_path, save_photo(tmp_path / "x.jpg"), flag, value) == 1
    assert f"--masks: cannot be combined with {flag}" in capsys.readouterr().err
    assert not calls.loaded


def test_a_folder_that_is_none(tmp_path, calls, capsys):
    assert recover(tmp_path, save_photo(tmp_path / "x.jpg")) == 1
    assert "masks: no such folder; give a folder of masks" in capsys.readouterr().err


@pytest.fixture(scope="module")
def detected(recoverer, sample_image):
    """The people of the sample photo, and the detector's mask of the person."""
    people = recoverer.prepare(sample_image).people
    return people, _upsampled(people.masks[0], people.mask_frames[0], sample_image.shape[:2])


def test_a_mask_is_a_box_and_a_silhouette(recoverer, sample_image, detected):
    people, mask = detected
    prepared = recoverer.prepare(sample_image, masks=mask[None])
    found = prepared.people
    assert len(found) == 1 and found.given.tolist() == [0]
    x0, y0, x1, y1 = found.boxes[0].astype(int)
    assert mask[y0:y1, x0:x1].sum() == mask.sum() and mask[:, : x0 - 1].sum() == 0
    again = _upsampled(found.masks[0], found.mask_frames[0], mask.shape)
    assert (again & mask).sum() / (again | mask).sum() > 0.9
    distance = np.linalg.norm((found.keypoints - people.keypoints)[0, :, :2], axis=-1)
    assert np.median(distance) < 5, "the same person is detected in the box"
    with pytest.raises(ValueError, match="masks are given with boxes or keypoints"):
        recoverer.prepare(sample_image, masks=mask[None], boxes=found.boxes)


def test_the_silhouette_of_the_refinement_is_the_given_mask(recoverer, sample_image, detected):
    """The mask grown by 8 px: its outline is that far outside of the detector's mask."""
    mask = Image.fromarray(detected[1]).convert("L")
    grown = np.asarray(mask.filter(ImageFilter.MaxFilter(17))) > 0
    prepared = recoverer.prepare(sample_image, masks=grown[None])
    outline = prepared.inputs.silhouette.outline[0]
    inner = np.argwhere(detected[1])[::3, ::-1] + 0.5
    gap = np.linalg.norm(outline[:, None] - inner, axis=-1).min(1)
    assert 5 < np.median(gap) < 12, "8 px, or more at a corner"
    assert prepared.inputs.silhouette.trust[0] == 1


def _upsampled(mask: np.ndarray, frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Where a mask of Detections is above a half, (H, W), by its nearest cells."""
    row, column = np.mgrid[: size[0], : size[1]] + 0.5
    points = np.stack([column.ravel(), row.ravel()]) - frame[:, 2:]
    u, v = np.floor(np.linalg.solve(frame[:, :2], points) * len(mask)).astype(int)
    inside = (np.minimum(u, v) >= 0) & (np.maximum(u, v) < len(mask))
    found = np.zeros(size[0] * size[1], bool)
    found[inside] = mask[v[inside], u[inside]] > 0.5
    return found.reshape(size)
