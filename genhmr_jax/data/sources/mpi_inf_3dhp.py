"""The test set of MPI-INF-3DHP, as SPIN's npz.

The release has annot_data.mat files in MATLAB's HDF5 form, which need h5py, not a dependency of
this package. SPIN's converter reads them and writes the npz that its and later evaluations use
(valid frames whose 17 joints all lie in the image). spin_npz.py describes the layout.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from genhmr_jax.data.sources.records import PersonRecord
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.data.sources.spin_npz import read_spin_npz

FILES = ("mpi_inf_3dhp_valid.npz", "mpi_inf_3dhp_test.npz")
"""Names of one file: SPIN's evaluation reads the first, its converter writes the second."""


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    path = next((root / name for name in FILES if (root / name).is_file()), root / FILES[0])
    yield from read_spin_npz(root, path, report, _sequence_and_frame)


def _sequence_and_frame(name: str) -> tuple[str, int]:
    """mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg -> TS1, 1."""
    found = re.search(r"(TS\d+)/.*?(\d+)\.\w+$", name)
    return (found[1], int(found[2])) if found else (Path(name).parent.name, 0)


SOURCES = (
    Source(
        name="mpi_inf_3dhp",
        kind="people",
        splits=("test",),
        folder="mpi_inf_3dhp",
        layout=(
            "MPI-INF-3DHP: download the test set from https://vcai.mpi-inf.mpg.de/3dhp-dataset; "
            "run preprocess_datasets.py --eval_files of https://github.com/nkolot/SPIN on it, "
            "which writes the npz; put them as mpi_inf_3dhp/mpi_inf_3dhp_valid.npz (or "
            "mpi_inf_3dhp_test.npz) and "
            "mpi_inf_3dhp/mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg ... in the "
            "manual directory."
        ),
        licence="non-commercial research",
        citation=(
            "Mehta et al., Monocular 3D Human Pose Estimation in the Wild Using Improved CNN "
            "Supervision, 3DV 2017"
        ),
        read=_read,
    ),
)
