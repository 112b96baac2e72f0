"""Human3.6M for evaluation, as SPIN's npz, subjects 9 and 11, every fifth frame.

Protocol 1 has all four cameras, protocol 2 the frontal one. Labels are the 17 joints of the motion
capture; the release has no SMPL poses. spin_npz.py describes the layout.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from genhmr_jax.data.sources.records import PersonRecord
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.data.sources.spin_npz import read_spin_npz

FILES = {"p1": "h36m_valid_protocol1.npz", "p2": "h36m_valid_protocol2.npz"}


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    yield from read_spin_npz(root, root / FILES[split], report, _sequence_and_frame)


def _sequence_and_frame(name: str) -> tuple[str, int]:
    """images/S9_Directions_1.60457274_000001.jpg -> S9_Directions_1.60457274, 1."""
    found = re.fullmatch(r"(.*)_(\d+)", Path(name).stem)
    return (found[1], int(found[2])) if found else (Path(name).stem, 0)


SOURCES = (
    Source(
        name="human36m",
        kind="people",
        splits=tuple(FILES),
        folder="h36m",
        layout=(
            "Human3.6M: register at http://vision.imar.ro/human3.6m and download the videos of "
            "S9 and S11 with their 3D positions (D3 Positions mono) and bounding boxes; run "
            "preprocess_datasets.py --eval_files of https://github.com/nkolot/SPIN on them, "
            "which extracts the images and writes the npz; put them as "
            "h36m/h36m_valid_protocol1.npz, h36m/h36m_valid_protocol2.npz and "
            "h36m/images/S9_Directions_1.60457274_000001.jpg ... in the manual directory."
        ),
        licence="academic use",
        citation=(
            "Ionescu et al., Human3.6M: Large Scale Datasets and Predictive Methods for 3D Human "
            "Sensing, TPAMI 2014"
        ),
        read=_read,
    ),
)
