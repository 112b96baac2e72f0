"""The training shards of 4D-Humans (HMR2.0): WebDataset tars of images and pickled people.

Each sample is KEY.jpg (.jpeg, .png), KEY.data.pyd and optionally KEY.detection.npz with masks. A
person's `scale` is width and height over 200 px; `extra_info["fitting_loss"]` is an array of
objects without axes that holds a dictionary. 3D keypoints are metres in camera orientation; poses
are in camera coordinates; pixels are as annotated.
"""

import functools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genhmr_jax.data.sources.filters import LabelFilters, PoseHistogram
from genhmr_jax.data.sources.photos import (
    box_of_scale,
    flat_numbers,
    known_only,
    mask_png,
    photo_size,
)
from genhmr_jax.data.sources.reading import (
    bare,
    entry,
    numbers,
    optional_entry,
    read_npz,
    read_pickle,
    tar_samples,
)
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.folders import find_files

IMAGE_FIELDS = ("jpg", "jpeg", "png")
HISTOGRAM = "amass_poses_hist100_SMPL+H_G.npy"
_AGAIN = "download the shard again"
_UNIT = "width and height over 200 px"

CORRUPT = frozenset(
    f"{folder}/{key}"
    for folder in ("aic-train", "aic-train-vitpose")
    for key in (
        "0a047f0124ae48f8eee15a9506ce1449ee1ba669",
        "1a703aa174450c02fbc9cfbf578a5435ef403689",
        "0394e6dc4df78042929b891dbc24f0fd7ffb6b6d",
        "5c032b9626e410441544c7669123ecc4ae077058",
        "ca018a7b4c5f53494006ebeeff9b4c0917a55f07",
        "4a77adb695bef75a5d34c04d589baf646fe2ba35",
        "a0689017b1065c664daef4ae2d14ea03d543217e",
        "39596a45cbd21bed4a5f9c2342505532f8ec5cbb",
        "3d33283b40610d87db660b62982f797d50a7366b",
    )
)
"""Images that 4D-Humans leaves out (CORRUPT_KEYS of its hmr2/datasets/image_dataset.py, L33)."""

_FOLDERS = {
    "hmr2_h36m": ("h36m-train", "Human3.6M, training subjects", 313),
    "hmr2_mpii": ("mpii-train", "MPII", 10),
    "hmr2_coco": ("coco-train-2014-pruned", "COCO 2014", 18),
    "hmr2_coco_vitpose": ("coco-train-2014-vitpose-pruned", "COCO 2014 with ViTPose keypoints", 45),
    "hmr2_mpi_inf": ("mpi-inf-train-pruned", "MPI-INF-3DHP, training subjects", 7),
    "hmr2_ava": ("ava-train-midframes-1fps-vitpose", "AVA", 93),
    "hmr2_aic": ("aic-train-vitpose", "AI Challenger", 105),
    "hmr2_insta": ("insta-train-vitpose-replicate", "InstaVariety", 3658),
}


def sample_image(sample: dict[str, bytes], where: object) -> bytes:
    """The image of a sample.

    Raises:
      InputError: it has no image.
    """
    for field in IMAGE_FIELDS:
        if field in sample:
            return sample[field]
    raise InputError(where, f"has no image, only {', '.join(sorted(sample))}", _AGAIN)


def sample_people(sample: dict[str, bytes], where: object) -> list[dict[str, Any]]:
    """The pickled people of a sample.

    Raises:
      InputError: there is no data.pyd, or it is not a list of dictionaries.
    """
    if "data.pyd" not in sample:
        raise InputError(where, f"has no data.pyd, only {', '.join(sorted(sample))}", _AGAIN)
    people = read_pickle(sample["data.pyd"], where)
    if not isinstance(people, list | tuple | np.ndarray):
        problem = f"data.pyd holds a {type(people).__name__} instead of a list of people"
        raise InputError(where, problem, _AGAIN)
    return [bare(person) for person in people]


def shard_samples(path: Path, report: Report) -> Iterator[tuple[str, dict[str, bytes]]]:
    """The samples of a shard up to its first error, which goes to the report."""
    with report.skipping():
        yield from tar_samples(path)


def _read(folder: str, root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    shards = _shards(root, report)
    filters = LabelFilters(histogram=_histogram(root.parent.parent / HISTOGRAM))
    yield from _read_shards(shards, folder, filters, report)


def _read_own(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    yield from _read_shards(_shards(report.require(root / split), report), split, None, report)


def _shards(root: Path, report: Report) -> list[Path]:
    shards = find_files(root, "*.tar")
    if not shards:
        report.missing(root, "holds no .tar")
    return shards


def _read_shards(
    shards: list[Path], sequence: str, filters: LabelFilters | None, report: Report
) -> Iterator[PersonRecord]:
    """The records of all shards, of one `sequence`; `filters` None keeps all labels."""
    for shard in shards:
        for key, sample in shard_samples(shard, report):
            where = f"{shard}: {key}"
            if filters and key in CORRUPT:  # known: listed, but no error without skip_bad
                name = f"{report.dataset}: {where}"
                report.listed.append(f"{name}: is left out: 4D-Humans lists it as corrupt")
                continue
            people, image, masks, size = [], b"", None, (0, 0)
            with report.skipping():
                people, image = sample_people(sample, where), sample_image(sample, where)
                size = photo_size(image, where)
                if (data := sample.get("detection.npz")) is not None:
                    masks = read_npz(data, ["masks"], where=f"{where}.detection.npz")["masks"]
            if not size[0]:
                continue
            for number, person in enumerate(people):
                record = None
                name = f"{where}, person {number}"
                with report.skipping():
                    record = _record(person, number, sequence, key, image, size, masks, name)
                    if filters:
                        record = filters.apply(record, _reprojection_loss(person, where))
                if record is not None:
                    yield record


def _histogram(path: Path) -> PoseHistogram | None:
    """The histogram in a file, or None with a warning if there is no file."""
    if path.is_file():
        return PoseHistogram.load(path)
    problem = f"{path} is not there: improbable poses are kept, which 4D-Humans drops"
    warnings.warn(problem, stacklevel=2)
    return None


def _record(
    person: dict,
    number: int,
    sequence: str,
    key: str,
    image: bytes,
    size: tuple[int, int],
    masks: Any,
    where: str,
) -> PersonRecord:
    get = lambda name: entry(person, name, where)
    pose = numbers(get("body_pose"), (72,), "body_pose", where)
    extra = optional_entry(person, "extra_info", where)
    flag = lambda name: float(flat_numbers(get(name), 1, name, where)[0] > 0)
    has_pose, has_betas = flag("has_body_pose"), flag("has_betas")
    return person_record(
        where,
        image=image,
        image_name=key,
        image_size=size,
        sequence=sequence,
        person=number,
        box=box_of_scale(get("center"), get("scale"), 200.0, size, _UNIT, where, crops=True),
        keypoints2d=known_only(numbers(get("keypoints_2d"), (44, 3), "keypoints_2d", where)),
        keypoints3d=known_only(numbers(get("keypoints_3d"), (44, 4), "keypoints_3d", where)),
        global_orient=has_pose * pose[:3],
        body_pose=has_pose * pose[3:],
        betas=has_betas * flat_numbers(get("betas"), None, "betas", where),
        has_pose=has_pose,
        has_betas=has_betas,
        mask=_mask(masks, extra, size, where),
    )


def _reprojection_loss(person: dict, where: str) -> float | None:
    """The loss of the fit behind the pseudo-labels, NaN or infinite if it failed; None: no fit."""
    fit = optional_entry(optional_entry(person, "extra_info", where), "fitting_loss", where)
    loss = optional_entry(fit, "reprojection_loss", where)
    if loss is None:
        return None
    return float(flat_numbers(loss, 1, "reprojection_loss", where, finite=False)[0])


def _mask(masks: np.ndarray | None, extra: Any, size: tuple[int, int], where: str) -> bytes:
    """The mask that a person's `extra_info` refers to, as PNG; b"" if there is none."""
    index = optional_entry(extra, "detection_npz_idx", where)
    if masks is None or index is None:
        return b""
    number = int(flat_numbers(index, 1, "detection_npz_idx", where)[0])
    if not 0 <= number < len(masks):
        raise InputError(where, f"names mask {number} of {len(masks)}", _AGAIN)
    return mask_png(masks[number], size, where)


def _source(name: str) -> Source:
    """A source of _FOLDERS."""
    folder, what, count = _FOLDERS[name]
    corrupt = ""
    if name == "hmr2_insta":
        corrupt = " Shards 002994 to 003000 are broken on the server: build with --skip-bad."
    layout = (
        f"{what} as training shards of 4D-Humans: run fetch_training_data.sh of "
        "https://github.com/shubham-goel/4D-Humans, which makes "
        f"hmr2_training_data/dataset_tars/{folder}/000000.tar to {count - 1:06d}.tar and "
        f"hmr2_training_data/{HISTOGRAM}; put hmr2_training_data into the manual "
        f"directory.{corrupt}"
    )
    return Source(
        name=name,
        kind="people",
        splits=("train",),
        folder=f"hmr2_training_data/dataset_tars/{folder}",
        layout=layout,
        licence="that of the images' dataset; the labels are for non-commercial research",
        citation=(
            "Goel et al., Humans in 4D: Reconstructing and Tracking Humans with Transformers, "
            "ICCV 2023"
        ),
        read=functools.partial(_read, folder),
    )


_OWN = Source(
    name="own_tars",
    kind="people",
    splits=("train", "val"),
    folder="own_tars",
    layout=(
        "Your own labelled photos in the form of 4D-Humans' shards: own_tars/train/*.tar (and "
        "own_tars/val/*.tar) in the manual directory. For each photo KEY a tar holds, next to "
        "each other, KEY.jpg (or .jpeg, .png) and KEY.data.pyd, a pickled list with a dictionary "
        "per person: keypoints_2d (44, 3) px and confidence, keypoints_3d (44, 4) metres and "
        "confidence, center (2,) px, scale (2,) width and height of the box over 200 px, "
        "body_pose (72,) axis-angle with the root in camera coordinates, betas (10,), "
        "has_body_pose and has_betas (0 or 1). Zeros where nothing is known; no label is "
        "filtered. `tar --sort=name -cf own_tars/train/000000.tar FOLDER` makes one."
    ),
    licence="yours",
    citation="",
    read=_read_own,
)

SOURCES = (*map(_source, _FOLDERS), _OWN)
