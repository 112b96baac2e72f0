"""The user's masks: the forms of files, the photo that each belongs to, and the people left out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.data.annotations.masks import MaskFolder, people_of_masks
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile

WIDTH, HEIGHT = SIZE = 90, 60
BOXES = [(10, 5, 30, 55), (50, 10, 80, 50)]  # of two people, px


def photo(name: str = "x.jpg", stem: str | None = None) -> ImageFile:
    return ImageFile(Path("photos", name), stem or Path(name).stem)


def labels(numbers=(1, 2)) -> np.ndarray:
    """An instance map of two rectangles."""
    found = np.zeros((HEIGHT, WIDTH), np.int64)
    for number, (x0, y0, x1, y1) in zip(numbers, BOXES, strict=True):
        found[y0:y1, x0:x1] = number
    return found


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> None:
    path.parent.mkdir(exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)


def people(folder, image=None, **how):
    return people_of_masks(MaskFolder(folder), image or photo(), SIZE, **how)


def grey(path):
    save(path, labels().astype(np.uint8))


def grey16(path):
    save(path, labels((300, 40_000)).astype(np.uint16))


def palette(path):
    image = Image.fromarray(labels((3, 7)).astype(np.uint8), "L")
    image.putpalette([0, 0, 0, *range(1, 100)])
    image.save(path)


def colours(path):
    save(path, np.array([[0, 0, 0], [0, 200, 0], [200, 0, 0]], np.uint8)[labels()])


def transparent(path):
    table = np.array([[9, 9, 9, 0], [0, 0, 200, 255], [200, 0, 0, 255]], np.uint8)
    save(path, table[labels()])


def separate(path):
    for i in (1, 2):
        save(path.parent / f"x_{i}.png", (255 * (labels() == i)).astype(np.uint8))


def bits(path):
    for i in (1, 2):
        save(path.parent / f"x_{i:03}.PNG", labels() == i)


def folder(path):
    for i in (1, 2):
        save(path.parent / "x" / f"person{9 * i - 7}.png", (labels() == i).astype(np.uint8))


FORMS = [grey, grey16, palette, colours, transparent, separate, bits, folder]


@pytest.mark.parametrize("write", FORMS, ids=lambda f: f.__name__)
def test_forms(tmp_path, write):
    write(tmp_path / "x.png")
    given = people(tmp_path)
    assert given.total == 2 and given.index.tolist() == [0, 1] and given.left_out == ()
    assert given.boxes is None and given.keypoints is None
    for (x0, y0, x1, y1), box in zip(BOXES, given.masks.boxes, strict=True):
        w, h = 0.05 * (x1 - x0), 0.05 * (y1 - y0)
        assert box.tolist() == pytest.approx([x0 - w, y0 - h, x1 + w, y1 + h])


def test_files_in_the_order_of_their_numbers(tmp_path):
    for number, (x0, y0, x1, y1) in ((10, BOXES[1]), (9, BOXES[0])):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[y0:y1, x0:x1] = 1
        save(tmp_path / f"x_{number}.png", mask)
    assert people(tmp_path).masks.boxes[:, 0] == pytest.approx([9, 48.5])


def test_people_of_whom_too_little_is_known(tmp_path):
    found = labels().astype(np.uint8)
    found[0:4, 0:7] = 3  # 7 px
    found[57:59, 0:80] = 4  # a line
    save(tmp_path / "x.png", found)
    given = people(tmp_path)
    assert given.index.tolist() == [0, 1] and given.total == 4
    assert given.left_out == (
        "x.png, label 3 of 4: the mask is only 7 x 4 px, too small for a person",
        "x.png, label 4 of 4: the mask is a line of less than 3 px, as soft edges have it",
    )


def test_an_empty_mask_is_left_out(tmp_path):
    separate(tmp_path / "x.png")
    save(tmp_path / "x_0.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    given = people(tmp_path)
    assert given.index.tolist() == [1, 2] and given.left_out == ("x_0.png: the mask is empty",)
    save(tmp_path / "y.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    nobody = people(tmp_path, photo("y.jpg"))
    assert nobody.total == 0 and len(nobody.masks) == 0


def test_the_largest_people_stay(tmp_path):
    grey(tmp_path / "x.png")
    given = people(tmp_path, max_people=1)
    assert given.index.tolist() == [1] and len(given.masks) == 1
    assert given.left_out == ("1 of 2 given people beyond --max-people 1",)
    assert given.masks.boxes[0, 0] == pytest.approx(48.5)


def test_soft_edges_are_no_people(tmp_path):
    soft = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)).astype(np.uint8)
    save(tmp_path / "x.png", soft)
    said = r"x.png: has 148 labels, which is no instance map; save it without .* x_1.png"
    with pytest.raises(InputError, match=said):
        people(tmp_path)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (
            lambda path: save(path, np.zeros((30, 45), np.uint8)),
            "x.png: the mask has 45 x 30 px, its photo 90 x 60 px; give masks of the upright",
        ),
        (
            lambda path: save(path.parent / "x_2.png", np.zeros((WIDTH, HEIGHT), np.uint8)),
            "x_2.png: the mask has 60 x 90 px, its photo 90 x 60 px",
        ),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 90), "x.png: is not an image"),
        (lambda path: save(path.parent / "z.png", labels().astype(np.uint8)), "no mask given for"),
        (lambda path: (grey(path), separate(path)), r"in two forms \(x.png, x_1.png\)"),
        (lambda path: (folder(path), separate(path)), r"in two forms \(x_1.png, x/\)"),
    ],
)
def test_masks_that_are_refused(tmp_path, write, said):
    write(tmp_path / "x.png")
    with pytest.raises(InputError, match=said):
        people(tmp_path)


def test_a_palette_whose_background_is_not_its_first_colour(tmp_path):
    image = Image.fromarray(labels((1, 0)).astype(np.uint8), "L")
    image.putpalette([200, 0, 0, 0, 0, 0, 0, 200, 0])
    image.save(tmp_path / "x.png")
    with pytest.raises(InputError, match="palette in which black is not the first colour"):
        people(tmp_path)


def test_folders_that_are_refused(tmp_path):
    for path, said in (
        (tmp_path / "gone", "no such folder"),
        (tmp_path, "is an empty folder"),
        (Path(__file__), "is a file, not a folder"),
    ):
        with pytest.raises(InputError, match=said):
            MaskFolder(path)


def test_which_photo_a_mask_belongs_to(tmp_path):
    """x_1.png is a photo's own map if that photo is there too."""
    for name in ("x_1", "a_z", "y"):
        grey(tmp_path / f"{name}.png")
    masks = MaskFolder(tmp_path)
    names = lambda image, photos: [path.name for path in masks.files_of(image, photos)[1]]
    x, x1 = photo(), photo("x_1.jpg")
    assert names(x1, [x, x1]) == ["x_1.png"]
    assert names(x, [x]) == ["x_1.png"] and not masks.files_of(x, [x])[0]
    with pytest.raises(InputError, match="no mask given for 'x'"):
        names(x, [x, x1])
    # Two photos of one name are told apart by their outputs.
    two = [ImageFile(Path(f"{f}/{n}.jpg"), f"{f}_{n}") for f in "ab" for n in "yz"]
    assert names(two[1], two) == ["a_z.png"]
    with pytest.raises(InputError, match="the masks 'y' in .* fit several photos; name them b_y"):
        names(two[2], two)


def test_the_photo_itself_is_no_mask(tmp_path):
    grey(tmp_path / "x.png")
    image = ImageFile(tmp_path / "x.png", "x")
    with pytest.raises(InputError, match="no mask given"):
        MaskFolder(tmp_path).files_of(image, [image])
