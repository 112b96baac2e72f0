"""A folder of somebody's own photos with 2D keypoints, and perhaps with boxes, cameras and fits of SMPL (docs/finetuning.md)."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from smpl_jax.keypoints import BODY44

from genhmr_jax.data.annotations import user
from genhmr_jax.data.annotations.matching import PhotoName
from genhmr_jax.data.sources.photos import keypoints_by_name, tight_square
from genhmr_jax.data.sources.reading import read_npz
from genhmr_jax.data.sources.records import person_record
from genhmr_jax.data.sources.source import Record, Report, Source
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.image_files import ImageFile, list_images
from genhmr_jax.io.images import upright_file

_NAMES = {i: f"openpose_{name}" for i, name in enumerate(DETECTED) if f"openpose_{name}" in BODY44}  # finger tips have no place there
_OF_ONE = {"global_orient": (3,), "body_pose": (69,), "betas": (10,), "translation": (3,), "keypoints2d": (len(DETECTED), 3)}
_MARGIN = 1.2  # of a box around keypoints, as SPIN has it


def _read(root: Path, split: str, report: Report) -> Iterator[Record]:
    folder = report.require(root / split)
    photos, _ = list_images([folder])
    given = _Given(*(read(file) if (file := folder / f"{name}.json").is_file() else None for name, read in _READERS.items()))
    for photo in photos:
        found: list[Record] = []
        left_out: Sequence[str] = ()
        with report.skipping():
            found, left_out = _people(photo, photos, split, given)
        for problem in left_out:
            report.bad(photo.path, problem, "leave the person out, or correct the file")
        yield from found


_READERS = {"keypoints": user.read_keypoints, "boxes": user.read_boxes, "cameras": user.read_cameras}


@dataclasses.dataclass(frozen=True)
class _Given:
    """What the JSON files of a folder have for its photos; None where there is no such file."""

    keypoints: user.Annotations | None
    boxes: user.Annotations | None
    cameras: user.Annotations | None


def _people(
    photo: ImageFile, photos: Sequence[ImageFile], split: str, given: _Given
) -> tuple[list[Record], tuple[str, ...]]:
    """A record for each person of a photo, of whom there may be none, and why others are left out.

    Raises:
      InputError: the photo is damaged, or nothing was given for it, or what was given does not fit it or each other.
    """
    path = photo.path
    image, (width, height) = upright_file(path)
    fit = _fit(path)
    keypoints = _keypoints(path, given.keypoints, fit)
    people = user.people_of_image(given.boxes, keypoints, photo, (width, height), photos=photos, min_keypoints=2)
    fit = _matched(path, fit, people)
    own = _matrix(_camera_of(fit), (width, height))
    intrinsics = own
    if given.cameras:
        intrinsics = _matrix(user.camera_of_image(given.cameras, photo, photos), (width, height))
    records = []
    for row, (number, points) in enumerate(zip(people.index, people.keypoints, strict=True)):
        body44 = keypoints_by_name(points[list(_NAMES)].astype(np.float64), tuple(_NAMES.values()))
        box = tight_square(points[points[:, 2] > 0, :2], _MARGIN) if people.boxes is None else people.boxes[row]
        labels = {"box": box, "keypoints2d": np.where(body44[:, 2:] > 0, body44, 0.0)}
        if intrinsics is not None:
            labels["intrinsics"] = intrinsics
        labels |= _body(fit, row, own is not None and np.allclose(own, intrinsics, rtol=0.01))
        of_photo = {"image": image, "image_name": path.name, "image_size": (width, height), "sequence": split}
        records.append(person_record(f"{path}, person {number}", person=int(number), **of_photo, **labels))
    return records, people.left_out


def _fit(path: Path) -> dict[str, np.ndarray]:
    """The arrays of fits/STEM.npz, all of people in the same order; {} if there is none."""
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
            raise InputError(file, f"{name} has shape {arrays[name].shape}", f"it must be {(people, *shape)}, one row for each person")
    return arrays


def _matched(path: Path, fit: dict[str, np.ndarray], people: user.GivenPeople) -> dict[str, np.ndarray]:
    """The fit's rows in the order of the people; NaN for those without a fit.

    A fit has a row for everybody who is given. `genhmr recover` leaves out whom it sees too little of: its fits are found by the
    keypoints that they were made to.

    Raises:
      InputError: another number of people, and no keypoints to find them by.
    """
    count = len(fit.get("global_orient", ()))
    if not fit or count == people.total:
        rows = people.index
    elif "keypoints2d" in fit:
        gaps = [[np.abs(mine - points).max() for mine in fit["keypoints2d"]] for points in people.keypoints]
        rows = [int(np.argmin(of_one)) if of_one and min(of_one) < 1.0 else -1 for of_one in gaps]  # px; -1 is the row of NaN
    else:
        problem = f"has {count} fits but keypoints of {people.total} people"
        raise InputError(path, problem, "give one for each, in the same order")
    nobody = {name: np.full((1, *fit[name].shape[1:]), np.nan) for name in _OF_ONE if name in fit}
    return fit | {name: np.concatenate([fit[name], nan])[rows] for name, nan in nobody.items()}


def _keypoints(path: Path, given: user.Annotations | None, fit: dict[str, np.ndarray]) -> user.Annotations:
    """From keypoints.json, from OpenPose's file beside the photo, or those that a fit was made to; the first that is there."""
    beside = path.with_name(f"{path.stem}_keypoints.json")
    if given is None and beside.is_file():
        given = user.read_keypoints(beside)
    if given is None and "keypoints2d" in fit:
        points = fit["keypoints2d"].astype(np.float32)
        seen = list(np.where(points[..., 2:] >= MIN_CONFIDENCE, points, 0.0))
        entry = user.Entry(seen, [np.nan] * len(seen))
        given = user.Annotations(f"fits/{path.stem}.npz", "keypoints", {PhotoName.of(path.stem): entry})
    if given is None:
        raise InputError(path, f"has no keypoints: neither keypoints.json nor {beside.name} nor a fit with keypoints", "give one of them")
    return given


def _camera_of(fit: dict[str, np.ndarray]) -> user.PhotoCamera | None:
    """The camera that a fit was made with, if it says."""
    if "focal_length" not in fit or "translation" not in fit:
        return None
    principal = tuple(fit["principal_point"].tolist()) if "principal_point" in fit else None
    return user.PhotoCamera(float(fit["focal_length"]), principal)


def _matrix(camera: user.PhotoCamera | None, size: tuple[int, int]) -> Float[np.ndarray, "3 3"] | None:
    """Intrinsics in px of a camera of a photo of this size."""
    if camera is None:
        return None
    x, y = camera.principal_point or (size[0] / 2, size[1] / 2)
    return np.array([[camera.focal, 0, x], [0, camera.focal, y], [0, 0, 1]])


def _body(fit: dict[str, np.ndarray], number: int, own_camera: bool) -> dict[str, np.ndarray]:
    """What a fit says of one person: NaN stands for nothing. Its translation holds under its own camera alone."""
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
        layout="Your own photos: own_photos/train/*.jpg (and own_photos/val/*.jpg; any image format) in the manual directory, with 2D "
        "keypoints in own_photos/train/keypoints.json (ours, COCO's or OpenPose's form: docs/annotations.md), or OpenPose's "
        "STEM_keypoints.json beside each photo. Perhaps boxes.json and cameras.json beside it, and fits of SMPL in "
        "own_photos/train/fits/STEM.npz: global_orient (P, 3), body_pose (P, 69) axis-angle in camera coordinates, betas (P, 10), with "
        "translation (P, 3) and focal_length if known, the people in the order of the keypoints, NaN for who has no fit. What `genhmr "
        "recover` writes is such a file; its keypoints are taken where you give none.",
        licence="yours",
        citation="",
        read=_read,
    ),
)
