"""The user's masks of a clip: which map belongs to which frame, and who is in it."""

import numpy as np
import pytest
from PIL import Image

from genhmr_jax.data.annotations.clip_masks import ClipMasks
from genhmr_jax.io.errors import InputError

SIZE = (60, 40)


def save(path, people, size=SIZE):
    """An instance map. people: label -> (x0, y0, x1, y1)."""
    labels = np.zeros(size[::-1], np.uint8)
    for label, (x0, y0, x1, y1) in people.items():
        labels[y0:y1, x0:x1] = label
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(labels).save(path)


def test_maps_of_pictures_have_their_names(tmp_path):
    save(tmp_path / "m" / "walk_b.png", {7: (10, 5, 20, 35), 3: (30, 5, 40, 35)})
    save(tmp_path / "m" / "another.png", {1: (0, 0, 20, 20)})
    masks = ClipMasks(tmp_path / "m", ["walk_a", "walk_b"], 2)
    given, labels = masks.people_of(1, SIZE)
    assert labels.tolist() == [3, 7]
    np.testing.assert_allclose(given.boxes[1], [9.5, 3.5, 20.5, 36.5])
    given, labels = masks.people_of(0, SIZE)  # no map: nobody is meant
    assert len(given) == len(labels) == 0


def test_maps_of_a_video_have_the_numbers_of_frames(tmp_path):
    save(tmp_path / "m" / "00000.png", {1: (10, 5, 20, 35)})
    save(tmp_path / "m" / "frame_12.png", {2: (10, 5, 20, 35)})
    save(tmp_path / "m" / "99.png", {5: (10, 5, 20, 35)})  # beyond the end
    masks = ClipMasks(tmp_path / "m", None, 20)
    assert [masks.people_of(i, SIZE)[1].tolist() for i in (0, 1, 12)] == [[1], [], [2]]
    assert [name for name, *_ in masks.identity] == ["00000.png", "frame_12.png"]


def test_specks_and_small_people_are_left_out(tmp_path):
    people = {1: (0, 0, 2, 40), 2: (10, 5, 20, 35), 3: (30, 5, 50, 35)}
    save(tmp_path / "m" / "0.png", people)
    masks = ClipMasks(tmp_path / "m", None, 1)
    assert masks.people_of(0, SIZE)[1].tolist() == [2, 3]
    given, labels = masks.people_of(0, SIZE, max_people=1)
    assert labels.tolist() == [3] and len(given) == 1


@pytest.mark.parametrize(
    "names, problem",
    [
        ([], "m: has no instance map of any frame of the clip; name maps after frames (00000.png"),
        (["7.png"], "m: has no instance map of any frame"),
        (["1.png", "01.png"], "are maps of frame 1; leave one of them"),
    ],
)
def test_folders_that_do_not_fit(tmp_path, names, problem):
    (tmp_path / "m").mkdir()
    for name in names:
        save(tmp_path / "m" / name, {})
    with pytest.raises(InputError) as raised:
        ClipMasks(tmp_path / "m", None, 5)
    assert problem in str(raised.value)


def test_no_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        ClipMasks(tmp_path / "none", None, 5)


def test_a_map_of_another_size_and_one_with_soft_edges(tmp_path):
    save(tmp_path / "m" / "0.png", {1: (10, 5, 20, 35)}, (61, 40))
    many = np.arange(60 * 40, dtype=np.uint32).reshape(40, 60) % 200
    Image.fromarray(many.astype(np.uint8)).save(tmp_path / "m" / "1.png")
    masks = ClipMasks(tmp_path / "m", None, 5)
    with pytest.raises(InputError, match="0.png: the mask has 61 x 40 px, its photo 60 x 40 px"):
        masks.people_of(0, SIZE)
    with pytest.raises(InputError, match="1.png: has 199 labels, which is no instance map"):
        masks.people_of(1, SIZE)
