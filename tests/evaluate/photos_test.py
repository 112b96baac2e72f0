"""The benchmark of photos: its figures on a made-up body whose right answers are known."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.core.inputs import Inputs
from genhmr_jax.detect.detections import Detections
from genhmr_jax.evaluate import photos, predictions
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.photo import Recoverer, RecoverOptions
from support.fakes import fake_people
from support.puppet import solved

TORSO = [
    DETECTED.index(f"{side}_{part}") for part in ("shoulder", "hip") for side in ("left", "right")
]
OTHERS = [i for i in range(len(DETECTED)) if i not in TORSO]


def square_person():
    """Two people; the second is a square whose image is exactly the pixels 20..40 x 10..30 of a 60
    x 40 photo."""
    people = fake_people(2)
    corners = np.array([[20, 10], [40, 10], [40, 30], [20, 30]], float)
    depth = 3.0
    square = np.concatenate([(corners - [30, 20]) * depth / 60, np.full((4, 1), depth)], axis=1)
    keypoints = np.tile([30.0, 20, 0.9], (2, 23, 1))
    keypoints[:, TORSO, :2] = [[25, 10], [35, 10], [25, 30], [35, 30]]  # torso: 20 px
    return dataclasses.replace(
        people,
        boxes=np.array([[0, 0, 10, 10], [20, 10, 40, 30]]),
        vertices=np.stack([square + [0, 0, 50], square]),
        faces=np.array([[0, 1, 2], [0, 2, 3]]),
        keypoints2d=keypoints,
        projected_keypoints=keypoints[..., :2],
    )


@dataclasses.dataclass
class PhotoModel:
    """Answers every photo with the same people, or a black one with `others`, and notes the
    options. `detect` has to be put in the place of predictions.detect."""

    people: object
    others: object = None
    options: list = dataclasses.field(default_factory=list)
    needs_box: bool = False

    recoverable = Recoverer.recoverable

    def __post_init__(self):
        body = load_body("lite").subset(range(4))
        self.system, self.body = self, dataclasses.replace(body, faces=square_person().faces)

    def of(self, image):
        return self.people if self.others is None or image.max() > 0 else self.others

    def detect(self, image, boxes, keypoints, *, max_people):
        assert boxes is None and keypoints is None, "from the photo alone"
        found = self.of(image)
        rows = {"boxes": found.boxes, "keypoints": found.keypoints2d}
        return dataclasses.replace(Detections.empty(len(found)), **rows)

    def prepare(self, image, people, photo, rows, *, published_crop):
        """The crop is the number of the person in the photo."""
        found = [i for i, box in enumerate(self.of(image).boxes) if (box == people.boxes).any()]
        view = CropCamera(
            crop=np.tile(np.float32((found or [0])[:1]), (rows, 3)),
            focal=np.full(rows, 60.0, np.float32),
            centre=np.tile(np.float32([30, 20]), (rows, 1)),
        )
        return Inputs(view)

    def solve(self, inputs, numbers, options):
        self.options.append(options)
        chosen = inputs.view.crop[:, 0].astype(int)
        return solved(
            len(numbers),
            vertices=self.people.vertices[chosen],
            projected_keypoints=self.people.projected_keypoints[chosen],
        )


@pytest.fixture
def run(monkeypatch):
    """photos.photos with the detector of a PhotoModel."""

    def photos_of(model, *args, **how):
        monkeypatch.setattr(predictions, "detect", model.detect)
        return photos.photos(model, *args, **how)

    return photos_of


@pytest.fixture
def score(monkeypatch):
    """The score of people in one photo whose person has a box (4,) and a mask (H, W)."""

    def score_of(people, box, mask):
        model = PhotoModel(people)
        monkeypatch.setattr(predictions, "detect", model.detect)
        image = predictions.TestImage(np.zeros((40, 60, 3), np.uint8), true_box=box)
        prepared = predictions.prepare(model, [image], RecoverOptions())
        answer = predictions.solve(model, prepared, RecoverOptions(), batch=1)
        return photos.score(prepared, answer, people.faces, mask)

    return score_of


def write_photos(folder, names=("a", "b")):
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 20:40] = 255
    for name in names:
        Image.new("RGB", (60, 40)).save(folder / f"{name}.jpg")
        Image.fromarray(mask).save(folder / f"{name}.mask.png")
    (folder / "boxes.json").write_text(json.dumps({name: [20, 10, 40, 30] for name in names}))


def test_iou_counts_pixels_of_the_right_person(score):
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:40] = True
    box = np.array([19, 9, 41, 31])
    assert score(square_person(), box, mask).iou == pytest.approx(1, abs=0.01)
    assert score(square_person(), box, np.roll(mask, 10, axis=1)).iou == pytest.approx(
        1 / 3, abs=0.02
    )


def test_pck_and_error(score):
    people = square_person()
    projected = people.projected_keypoints.copy()
    projected[1, OTHERS[:6]] += [0, 1.9]  # within a tenth of the 20 px torso
    projected[1, OTHERS[6:11]] += [2.1, 0]  # outside
    keypoints = people.keypoints2d.copy()
    keypoints[1, OTHERS[11], 2], projected[1, OTHERS[11]] = 0.1, 1000  # unseen
    people = dataclasses.replace(people, projected_keypoints=projected, keypoints2d=keypoints)
    found = score(people, np.array([20, 10, 40, 30]), np.ones((40, 60), bool))
    assert found.pck == pytest.approx(17 / 22)
    assert found.error_px == pytest.approx((6 * 1.9 + 5 * 2.1) / 22, rel=1e-5)
    assert found.error_box == pytest.approx(found.error_px / 20, rel=1e-5)


def test_photos(run, tmp_path):
    write_photos(tmp_path)
    model, out = PhotoModel(square_person()), tmp_path / "out"
    report = run(model, tmp_path, options=RecoverOptions(refine_steps=7), pictures=out)
    assert [options.refine_steps for options in model.options] == [0, 7, 7] * 2
    lines = [line for line in photos.photos_table(report).splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == ["photo", "---", "a", "b", "mean"]
    assert sorted(p.name for p in out.iterdir()) == [
        "a_refined.png",
        "a_sampled.png",
        "b_refined.png",
        "b_sampled.png",
    ]
    assert report["photos"]["b"]["refined"]["pck"] == 1.0 and report["photos"]["b"]["found"] == 2
    assert report["mean"]["refined"]["iou"] == pytest.approx(1, abs=0.01)
    json.dumps(report)


def test_bad_photos_are_named(run, tmp_path):
    model = PhotoModel(square_person())
    with pytest.raises(InputError, match=r"boxes.json: cannot be read"):
        run(model, tmp_path)
    write_photos(tmp_path)
    for text, problem in (
        ("[1]", "cannot be read"),
        ("{}", "names no photo"),
        ('{"a": [1, 2, 3]}', "'a' has no box"),
    ):
        (tmp_path / "boxes.json").write_text(text)
        with pytest.raises(InputError, match=problem):
            run(model, tmp_path)
    write_photos(tmp_path)
    Image.new("L", (30, 40)).save(tmp_path / "a.mask.png")
    with pytest.raises(InputError, match="a.mask.png: has another size"):
        run(model, tmp_path)


@pytest.mark.parametrize("others", [fake_people(0), "elsewhere"])
def test_a_person_who_is_not_found_counts_as_missed(run, tmp_path, others):
    """Nobody in the photo, or somebody else alone: IoU and PCK 0, no errors, and the other photos
    still count."""
    if others == "elsewhere":
        others = dataclasses.replace(
            square_person(), boxes=np.array([[0, 0, 5, 5], [50, 32, 60, 40]])
        )
    write_photos(tmp_path)
    Image.new("RGB", (60, 40), "white").save(tmp_path / "a.jpg")
    model = PhotoModel(square_person(), others)
    report = run(model, tmp_path, pictures=tmp_path / "out")
    missed = report["photos"]["b"]["refined"]
    assert missed == {"iou": 0.0, "pck": 0.0, "error_px": None, "error_box": None}
    assert report["mean"]["found"] == 0.5 and report["mean"]["refined"]["pck"] == 0.5
    assert report["mean"]["refined"]["error_px"] == report["photos"]["a"]["refined"]["error_px"]
    assert json.loads(json.dumps(report))["mean"]["refined"]["iou"] == pytest.approx(0.5, abs=0.01)
    table = photos.photos_table(report)
    assert "| b | 0.000 -> 0.000 | 0.000 -> 0.000 | not found |" in table and "| mean | " in table
    assert (tmp_path / "out" / "b_refined.png").exists()


def test_nobody_found_in_any_photo_is_still_a_table(run, tmp_path):
    write_photos(tmp_path)
    report = run(PhotoModel(square_person(), fake_people(0)), tmp_path)
    line = "| mean | 0.000 -> 0.000 | 0.000 -> 0.000 | not found |"
    assert report["mean"]["found"] == 0 and line in photos.photos_table(report)
