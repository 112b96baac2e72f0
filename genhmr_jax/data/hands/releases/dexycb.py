"""DexYCB: a right or left hand that grasps an object, seen by 8 cameras, 640 x 480 px.

Chao et al., CVPR 2021. The layout is that of github.com/NVlabs/dex-ycb-toolkit (64551b0):

* `dex_ycb_toolkit/dex_ycb.py`, `DexYCBDataset.__init__` and `__getitem__`: subjects, cameras, the
  splits s0 to s3, SUBJECT/SEQUENCE/CAMERA/color_%06d.jpg and labels_%06d.npz, num_frames,
  mano_sides and mano_calib of SUBJECT/SEQUENCE/meta.yml, betas of calibration/mano_*/mano.yml, and
  fx, fy, ppx, ppy under "color" of calibration/intrinsics/CAMERA_640x480.yml. The samples have the
  order of `_mapping`: sequences, then cameras, then frames. `_MANO_JOINTS`: the order is HAND21.
* `dex_ycb_toolkit/hpe_eval.py`, `_generate_anno_file`: joint_3d (1, 21, 3) is in metres; frames in
  which all of it is -1 have no hand and are left out. `examples/visualize_pose.py`,
  `create_scene`: OpenCV's axes, and pose_m (1, 51) is the wrist's axis-angle, 45 coefficients of
  MANO's components (use_pca=True, flat_hand_mean=False), and the translation in metres.
* `dex_ycb_toolkit/coco_eval.py`, line 90: joint_2d (1, 21, 2) px.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genhmr_jax.data.hands.releases.reading import finite, inside, present, read_yaml
from genhmr_jax.data.hands.releases.record import HandRecord, tight_box, weighted
from genhmr_jax.data.sources.photos import flat_numbers
from genhmr_jax.data.sources.reading import entry, read_npz
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_folders

SUBJECTS = (
    *("20200709-subject-01", "20200813-subject-02", "20200820-subject-03", "20200903-subject-04"),
    *("20200908-subject-05", "20200918-subject-06", "20200928-subject-07", "20201002-subject-08"),
    *("20201015-subject-09", "20201022-subject-10"),
)
CAMERAS = (
    *("836212060125", "839512060362", "840412060917", "841412060263"),
    *("932122060857", "932122060861", "932122061900", "932122062010"),
)
SEQUENCES = 100
"""Sequences of each subject. The splits are numbers in their sorted list, which must be whole."""

_ALL = range(SEQUENCES)
_OBJECT = 5  # sequences of one object follow each other
_SPLITS = {  # split: (subjects, cameras, sequences), all as numbers
    "s0_train": (range(10), range(8), [i for i in _ALL if i % 5 != 4]),
    "s0_val": ((0, 1), range(8), [i for i in _ALL if i % 5 == 4]),
    "s0_test": (range(2, 10), range(8), [i for i in _ALL if i % 5 == 4]),
    "s1_train": ((0, 1, 2, 3, 4, 5, 9), range(8), _ALL),
    "s1_val": ((6,), range(8), _ALL),
    "s1_test": ((7, 8), range(8), _ALL),
    "s2_train": (range(10), range(6), _ALL),
    "s2_val": (range(10), (6,), _ALL),
    "s2_test": (range(10), (7,), _ALL),
    "s3_train": (
        *(range(10), range(8)),
        [i for i in _ALL if i // _OBJECT not in (3, 7, 11, 15, 19)],
    ),
    "s3_val": (range(10), range(8), [i for i in _ALL if i // _OBJECT in (3, 19)]),
    "s3_test": (range(10), range(8), [i for i in _ALL if i // _OBJECT in (7, 11, 15)]),
}
SPLITS = tuple(_SPLITS)


def records(root: str | Path, split: str, report: Report | None = None) -> Iterator[HandRecord]:
    """The frames of a split that show a hand, in the official order.

    Args:
      root: dex-ycb, the folder with the ten subjects and calibration/.
      split: s0 (sequences), s1 (subjects), s2 (cameras) or s3 (objects) with _train, _val or _test.
      report: of bad samples; None stops at the first.

    Raises:
      InputError: an unknown split, a part of the release is missing, or a sample is bad and
        `report` does not skip.
    """
    report = report or SOURCE.report()
    SOURCE.check_split(split)
    root = Path(root)
    subjects, cameras, numbers = _SPLITS[split]
    intrinsics = {
        CAMERAS[i]: _intrinsics(
            report.require(root / "calibration" / "intrinsics" / f"{CAMERAS[i]}_640x480.yml")
        )
        for i in cameras
    }
    for subject in (SUBJECTS[i] for i in subjects):
        folders = find_folders(report.require(root / subject))
        if len(folders) != SEQUENCES:
            problem = f"has {len(folders)} sequences instead of {SEQUENCES}"
            report.missing(root / subject, problem)
        for folder in (folders[i] for i in numbers):
            meta = None
            with report.skipping():
                meta = _meta(root, folder / "meta.yml")
            for camera in intrinsics if meta else ():
                for frame in range(meta["frames"]):
                    record = None
                    with report.skipping():
                        place = folder / camera
                        record = _record(root, place, frame, meta, intrinsics[camera])
                    if record is not None:
                        yield record


def _intrinsics(path: Path) -> np.ndarray:
    """The camera matrix of a file of calibration/intrinsics. Raises InputError."""
    color = entry(read_yaml(path), "color", path)
    get = lambda name: float(flat_numbers(entry(color, name, path), 1, name, path)[0])
    fx, fy, ppx, ppy = (get(name) for name in ("fx", "fy", "ppx", "ppy"))
    return np.array([[fx, 0.0, ppx], [0.0, fy, ppy], [0.0, 0.0, 1.0]])


def _meta(root: Path, path: Path) -> dict[str, Any]:
    """Number of frames, side and betas of a sequence. Raises InputError."""
    content = read_yaml(path)
    frames, sides, calibrations = (
        entry(content, name, path) for name in ("num_frames", "mano_sides", "mano_calib")
    )
    if not isinstance(frames, int) or frames < 0:
        raise InputError(path, f"num_frames is {frames!r}", "download it again")
    if not isinstance(sides, list) or sides[:1] not in (["right"], ["left"]):
        raise InputError(path, f"mano_sides is {sides!r}", "it must be [right] or [left]")
    if not isinstance(calibrations, list) or not calibrations:
        raise InputError(path, f"mano_calib is {calibrations!r}", "it must be a list of names")
    shape = root / "calibration" / inside(f"mano_{calibrations[0]}/mano.yml", path)
    betas = flat_numbers(entry(read_yaml(shape), "betas", shape), 10, "betas", shape)
    return {"frames": frames, "right": sides[0] == "right", "betas": betas}


def _record(
    root: Path, place: Path, frame: int, meta: dict[str, Any], camera: np.ndarray
) -> HandRecord | None:
    """One frame; None without a hand. Raises InputError."""
    where = place / f"labels_{frame:06d}.npz"
    labels = read_npz(where, ("joint_3d", "joint_2d", "pose_m"))
    points = finite(labels["joint_3d"], (1, 21, 3), "joint_3d", where)[0]
    if (points == -1).all():
        return None
    pixels = finite(labels["joint_2d"], (1, 21, 2), "joint_2d", where)[0]
    fields: dict[str, Any] = {}
    pose = finite(labels["pose_m"], (1, 51), "pose_m", where)[0]
    if pose.any():  # zeros stand for no pose
        fields = {"pose": pose[:48], "pose_form": "pca", "trans": pose[48:]}
    image = present(place / f"color_{frame:06d}.jpg", where)
    return HandRecord(
        name=image.relative_to(root).with_suffix("").as_posix(),
        image=image,
        right=meta["right"],
        box=tight_box(pixels),
        keypoints=weighted(pixels),
        keypoints3d=points,
        wrist=points[0],
        betas=meta["betas"],
        intrinsics=camera,
        **fields,
    )


SOURCE = Source(
    name="dexycb",
    kind="hands",
    splits=SPLITS,
    folder="dex-ycb",
    layout=(
        "DexYCB: download the ten subjects and calibration from https://dex-ycb.github.io, and "
        "unpack them as dex-ycb/20200709-subject-01/SEQUENCE/CAMERA/color_000000.jpg and "
        "labels_000000.npz, up to 20201022-subject-10, and dex-ycb/calibration in the manual "
        "directory. The objects are not needed."
    ),
    licence="non-commercial (see the project site)",
    citation="Chao et al., DexYCB: A Benchmark for Capturing Hand Grasping of Objects, CVPR 2021",
    read=records,
)
