"""SPIN's npz files of Human3.6M and MPI-INF-3DHP: imgname, center, scale, S, optionally part.

`scale` is the side of a square over 200 px. SPIN crops that square (datasets/base_dataset.py,
L121); here it is a box, whose crop is 4/3 as large, as in 4D-Humans' npz of these datasets.

S (N, 24, 4) holds metres relative to the pelvis in camera orientation, and 1 for known joints; part
(N, 24, 3) the same in px. Their 24 joints are the 19 extra ones of BODY44, then nose, eyes and
ears. Pixels are as in the datasets' projections.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from smpl_jax.keypoints import EXTRA19

from genhmr_jax.data.sources.hmr2_npz import check_lengths, imgname_text
from genhmr_jax.data.sources.photos import (
    box_of_scale,
    keypoints_by_name,
    known_only,
    photo_size,
    read_photo,
)
from genhmr_jax.data.sources.reading import numbers, read_npz
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.sources.source import Report

SPIN24 = (
    *EXTRA19,
    *(f"openpose_{name}" for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear")),
)


def read_spin_npz(
    root: Path, path: Path, report: Report, sequence_and_frame: Callable[[str], tuple[str, int]]
) -> Iterator[PersonRecord]:
    """The records of one npz, in its order.

    Args:
      root: the folder that image names start from.
      path: the npz.
      report: of bad records.
      sequence_and_frame: reads both from the name of an image.
    """
    arrays = read_npz(report.require(path), ("imgname", "center", "scale", "S"), ("part",))
    for row in range(check_lengths(arrays, path)):
        name, record = imgname_text(arrays["imgname"][row]), None
        where = f"{path}: record {row} ({name})"
        with report.skipping():
            sequence, frame = sequence_and_frame(name)
            image = read_photo(root, name, where)
            size = photo_size(image, where)
            labels = {}
            if "part" in arrays:
                points = known_only(numbers(arrays["part"][row], (24, 3), "part", where))
                labels["keypoints2d"] = keypoints_by_name(points, SPIN24)
            center, scale = arrays["center"][row], arrays["scale"][row]
            points3d = known_only(numbers(arrays["S"][row], (24, 4), "S", where))
            record = person_record(
                where,
                image=image,
                image_name=name,
                image_size=size,
                sequence=sequence,
                frame=frame,
                box=box_of_scale(center, scale, 200.0, size, "a square's side over 200 px", where),
                keypoints3d=keypoints_by_name(points3d, SPIN24),
                **labels,
            )
        if record is not None:
            yield record
