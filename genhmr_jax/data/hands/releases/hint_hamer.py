"""HInt's test images with the boxes and keypoints of HaMeR's evaluation files.

HaMeR measures PCK on HInt with these files (Pavlakos et al., CVPR 2024). The layout is that of
github.com/geopavlakos/hamer (3a01849):

* README, "Evaluation", and `hamer/configs/datasets_eval.yaml`: hamer_evaluation_data/
  TEST_{newdays,epick,ego4d}_img_{all,vis,occ}.npz; the images are in the folders of HInt.
* `hamer/datasets/image_dataset.py`, `ImageDataset.__init__`: imgname (text or bytes), center px,
  scale px (one number, or width and height), right (1 if absent), and hand_keypoints_2d (21, 3): x
  and y px and a confidence. They are in the order of the model, which is HAND21.
* `hamer/utils/pose_utils.py`, `EvaluatorPCK`: keypoints with a confidence above 0.5 are measured.

By their names, `_all` has all keypoints, `_vis` the visible and `_occ` the occluded ones; the field
`occluded` is None. 3D fields of these files are not read: HInt has no 3D labels.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genhmr_jax.data.hands.releases.reading import finite, inside, present
from genhmr_jax.data.hands.releases.record import HandRecord, weighted
from genhmr_jax.data.sources.photos import flat_numbers
from genhmr_jax.data.sources.reading import bare, read_npz
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError

SPLITS = tuple(
    f"TEST_{videos}_img_{group}"
    for videos in ("newdays", "epick", "ego4d")
    for group in ("all", "vis", "occ")
)

_CONFIDENT = 0.5


def records(root: str | Path, split: str, report: Report | None = None) -> Iterator[HandRecord]:
    """The hands of a split, in the order of its file.

    Args:
      root: hamer_evaluation_data; the images are in HInt_annotation (or HInt_annotation_partial)
        beside it.
      split: the stem of a file, one of SPLITS.
      report: of bad samples; None stops at the first.

    Raises:
      InputError: an unknown split, a file is missing, or a sample is bad and `report` does not
        skip.
    """
    report = report or SOURCE.report()
    SOURCE.check_split(split)
    file = report.require(Path(root) / f"{split}.npz")
    folders = [file.parent.parent / f"HInt_annotation{end}" for end in ("", "_partial")]
    there = folders[1] if folders[1].is_dir() and not folders[0].is_dir() else folders[0]
    images = report.require(there / split.rpartition("_")[0])
    keys = ("imgname", "center", "scale", "hand_keypoints_2d")
    arrays = read_npz(file, keys, ("right",))
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise InputError(file, f"its arrays have {counts} samples", "download it again")
    for number in range(counts["imgname"]):
        record, where = None, f"{file}: sample {number}"
        with report.skipping():
            own = {name: array[number] for name, array in arrays.items()}
            record = _record(own, images, split, where)
        if record is not None:
            yield record


def _record(own: dict[str, object], images: Path, split: str, where: str) -> HandRecord:
    """One sample. Raises InputError."""
    name = bare(own["imgname"])
    name = inside(name.decode("latin1") if isinstance(name, bytes) else str(name), where)
    centre = flat_numbers(own["center"], 2, "center", where)
    sides = flat_numbers(own["scale"], None, "scale", where)
    if len(sides) not in (1, 2) or not (sides > 0).all():
        raise InputError(where, f"its scale is {sides.tolist()}", "it must be one or two sides, px")
    points = finite(own["hand_keypoints_2d"], (21, 3), "hand_keypoints_2d", where)
    right = flat_numbers(own.get("right", 1.0), 1, "right", where)[0]
    return HandRecord(
        name=f"{split}/{Path(name).with_suffix('').as_posix()}",
        image=present(images / name, where),
        right=bool(right > 0.5),
        box=np.concatenate([centre - sides / 2, centre + sides / 2]),
        keypoints=weighted(points[:, :2], points[:, 2] > _CONFIDENT),
    )


SOURCE = Source(
    name="hint_hamer",
    kind="hands",
    splits=SPLITS,
    folder="hamer_evaluation_data",
    layout=(
        "HaMeR's evaluation files of HInt: download hamer_evaluation_data.tar.gz by the link in "
        "the section Evaluation of https://github.com/geopavlakos/hamer, and unpack it as "
        "hamer_evaluation_data/TEST_newdays_img_all.npz in the manual directory. The images are "
        "those of hint: HInt_annotation/TEST_newdays_img/ beside it."
    ),
    licence="research; images under the terms of Hands23, Epic-Kitchens VISOR and Ego4D",
    citation="Pavlakos et al., Reconstructing Hands in 3D with Transformers, CVPR 2024",
    read=records,
)
