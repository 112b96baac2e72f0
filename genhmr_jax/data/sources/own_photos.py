"""A folder of the user's own photos with 2D keypoints; boxes, cameras and SMPL fits are optional.

docs/finetuning.md describes it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from smpl_jax.keypoints import BODY44

from genhmr_jax.data.annotations import selection, user
from genhmr_jax.data.annotations.matching import PhotoName
from genhmr_jax.data.sources.photos import keypoints_by_name, tight_square
from genhmr_jax.data.sources.reading import read_npz
from genhmr_jax.data.sources.records import PersonRecord, person_record
from genhmr_jax.data.sources.source import Report, Source
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile, list_images
from genhmr_jax.io.images import upright_file

# BODY44 has no finger tips.
_NAMES = {i: f"openpose_{name}" for i, name in enumerate(DETECTED) if f"openpose_{name}" in BODY44}
# Shapes of the arrays of a fit, for one person.
_OF_ONE = {
    "global_orient": (3,),
    "body_pose": (69,),
    "betas": (10,),
    "translation": (3,),
    "keypoints2d": (len(DETECTED), 3),
}
_MARGIN = 1.2  # of a box around keypoints, as in SPIN


def _read(root: Path, split: str, report: Report) -> Iterator[PersonRecord]:
    folder = report.require(root / split)
    photos, _ = list_images([folder])
    files = _Files.read(folder)
    for photo in photos:
        found: list[PersonRecord] = []
        left_out: Sequence[str] = ()
        with report.skipping():
            found, left_out = _people(photo, photos, split, files)
        for problem in left_out:
            report.bad(photo.path, problem, "leave the person out, or correct the file")
        yield from found


@dataclasses.dataclass(frozen=True)
class _Files:
    """The JSON files of a folder; None where there is no such file."""

    keypoints: user.Annotations | None
    boxes: user.Annotations | None
    cameras: user.Annotations | None

    @staticmethod
    def read(folder: Path) -> "_Files":
        """keypoints.json, boxes.json and cameras.json. Raises InputError for a bad file."""
        read = lambda reader, name: reader(path) if (path := folder / name).is_file() else None
        return _Files(
            keypoints=read(user.read_keypoints, "keypoints.json"),
            boxes=read(user.read_boxes, "boxes.json"),
            cameras=read(user.read_cameras, "cameras.json"),
        )


def _people(
    photo: ImageFile, photos: Sequence[ImageFile], split: str, files: _Files
) -> tuple[list[PersonRecord], tuple[str, ...]]:
    """A record for each person of a photo, perhaps none, and the reasons for leaving others out.

    Raises:
      InputError: the photo is damaged, the files have nothing for it, or files and photo do not fit
        each other.
    """
    # 1. What the files hold for this photo.
    path = photo.path
    image, size = upright_file(path)
    fit = _fit(path)
    keypoints = _keypoints(path, files.keypoints, fit)
    people = selection.people_of_image(
        files.boxes, keypoints, photo, size, photos=photos, min_keypoints=2
    )
    fit = _matched(path, fit, people)
    intrinsics_of_fit = intrinsics = _matrix(_camera_of(fit), size)
    if files.cameras:
        intrinsics = _matrix(user.camera_of_image(files.cameras, photo, photos), size)
    same_camera = intrinsics_of_fit is not None and np.allclose(
        intrinsics_of_fit, intrinsics, rtol=0.01
    )

    # 2. A record for each person.
    records = []
    for row, (number, points) in enumerate(zip(people.index, people.keypoints, strict=True)):
        body44 = keypoints_by_name(points[list(_NAMES)].astype(np.float64), tuple(_NAMES.values()))
        if people.boxes is None:
            box = tight_square(points[points[:, 2] > 0, :2], _MARGIN)
        else:
            box = people.boxes[row]
        labels = _body(fit, row, same_camera)
        if intrinsics is not None:
            labels["intrinsics"] = intrinsics
        record = person_record(
            f"{path}, person {number}",
            image=image,
            image_name=path.name,
            image_size=size,
            sequence=split,
            person=int(number),
            box=box,
            keypoints2d=np.where(body44[:, 2:] > 0, body44, 0.0),
            **labels,
        )
        records.append(record)
    return records, people.left_out


def _fit(path: Path) -> dict[str, np.ndarray]:
    """The arrays of fits/STEM.npz, with people in the same order; {} if there is no file."""
    file = path.parent / "fits" / f"{path.stem}.npz"
    if not file.is_file():
        return {}
    wanted = ("translation", "focal_length", "principal_point", "keypoints2d", "keypoint_names")
    arrays = read_npz(file, ("global_orient", "body_pose", "betas"), wanted)
    people = len(np.atleast_1d(arrays["global_orient"]))
    if tuple(arrays.pop("keypoint_names", ())) != DETECTED:
        arrays.pop("keypoints2d", None)
    for name, shape in _OF_ONE.items():
        if name in arrays and arrays[name].shape != (people, *shape):
            remedy = f"it must be {(people, *shape)}, one row for each person"
            raise InputError(file, f"{name} has shape {arrays[name].shape}", remedy)
    return arrays


def _matched(
    path: Path, fit: dict[str, np.ndarray], people: selection.UserAnnotations
) -> dict[str, np.ndarray]:
    """The fit's rows in the order of the people; NaN for those without a fit.

    A fit has a row for each annotated person. But `genhmr recover` leaves out people with too few
    keypoints: the rows of its fits are matched by the keypoints that they were fitted to.

    Raises:
      InputError: another number of people, and no keypoints to match.
    """
    count = len(fit.get("global_orient", ()))
    if not fit or count == people.total:
        rows = people.index
    elif "keypoints2d" in fit:
        rows = []
        for points in people.keypoints:
            gaps = [np.abs(fitted - points).max() for fitted in fit["keypoints2d"]]  # px
            rows.append(int(np.argmin(gaps)) if gaps and min(gaps) < 1.0 else -1)  # -1: NaN below
    else:
        problem = f"has {count} fits but keypoints of {people.total} people"
        raise InputError(path, problem, "give one for each, in the same order")
    unknown = {name: np.full((1, *fit[name].shape[1:]), np.nan) for name in _OF_ONE if name in fit}
    return fit | {name: np.concatenate([fit[name], nan])[rows] for name, nan in unknown.items()}


def _keypoints(
    path: Path, given: user.Annotations | None, fit: dict[str, np.ndarray]
) -> user.Annotations:
    """The first of: keypoints.json, OpenPose's file beside the photo, those of a fit."""
    beside = path.with_name(f"{path.stem}_keypoints.json")
    if given is None and beside.is_file():
        given = user.read_keypoints(beside)
    if given is None and "keypoints2d" in fit:
        points = fit["keypoints2d"].astype(np.float32)
        known = list(np.where(points[..., 2:] >= MIN_CONFIDENCE, points, 0.0))
        named = {PhotoName.of(path.stem): user.Entry(known, [np.nan] * len(known))}
        given = user.Annotations(f"fits/{path.stem}.npz", "keypoints", named)
    if given is None:
        missing = f"neither keypoints.json nor {beside.name} nor a fit with keypoints"
        raise InputError(path, f"has no keypoints: {missing}", "give one of them")
    return given


def _camera_of(fit: dict[str, np.ndarray]) -> user.UserCamera | None:
    """The camera of a fit, or None if the file lacks it."""
    if "focal_length" not in fit or "translation" not in fit:
        return None
    principal = tuple(fit["principal_point"].tolist()) if "principal_point" in fit else None
    return user.UserCamera(float(fit["focal_length"]), principal)


def _matrix(
    camera: user.UserCamera | None, size: tuple[int, int]
) -> Float[np.ndarray, "3 3"] | None:
    """Intrinsics, px, of the camera of a photo of this size."""
    if camera is None:
        return None
    x, y = camera.principal_point or (size[0] / 2, size[1] / 2)
    return np.array([[camera.focal, 0, x], [0, camera.focal, y], [0, 0, 1]])


def _body(fit: dict[str, np.ndarray], number: int, own_camera: bool) -> dict[str, np.ndarray]:
    """The labels of one person from a fit; {} where it is NaN.

    The translation is valid only for the fit's own camera.
    """
    if not fit or not np.isfinite(fit["body_pose"][number]).all():
        return {}
    body = {name: fit[name][number] for name in ("global_orient", "body_pose", "betas")}
    return body | ({"translation": fit["translation"][number]} if own_camera else {})


SOURCES = (
    Source(
        name="own_photos",
        kind="people",
        splits=("train", "val"),
        folder="own_photos",
        layout=(
            "Your own photos: own_photos/train/*.jpg (and own_photos/val/*.jpg; any image "
            "format) in the manual directory, with 2D keypoints in "
            "own_photos/train/keypoints.json (ours, COCO's or OpenPose's form: "
            "docs/annotations.md), or OpenPose's STEM_keypoints.json beside each photo. "
            "Optional: boxes.json and cameras.json beside it, and fits of SMPL in "
            "own_photos/train/fits/STEM.npz: global_orient (P, 3), body_pose (P, 69) axis-angle "
            "in camera coordinates, betas (P, 10), with translation (P, 3) and focal_length if "
            "known, people in the order of the keypoints, NaN for people without a fit. `genhmr "
            "recover` writes such files; their keypoints are used where you give none."
        ),
        licence="yours",
        citation="",
        read=_read,
    ),
)
