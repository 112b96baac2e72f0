"""A folder of somebody's own photos with 2D keypoints, and perhaps with boxes, cameras and fits of SMPL (docs/finetuning.md)."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image
from smpl_jax.keypoints import BODY44

from genhmr_jax.body.keypoints import DETECTED, MIN_CONFIDENCE
from genhmr_jax.data.sources.photos import keypoints_by_name, tight_square
from genhmr_jax.data.sources.reading import read_npz
from genhmr_jax.data.sources.records import person_record
from genhmr_jax.data.sources.source import Record, Report, Source
from genhmr_jax.detect import user
from genhmr_jax.errors import InputError
from genhmr_jax.images import list_images, read_image

_NAMES = {i: f"openpose_{name}" for i, name in enumerate(DETECTED) if f"openpose_{name}" in BODY44}  # finger tips have no place there
_OF_ONE = {"global_orient": (3,), "body_pose": (69,), "betas": (10,), "translation": (3,), "keypoints2d": (len(DETECTED), 3)}
_MARGIN = 1.2  # of a box around keypoints, as SPIN has it


def _read(root: Path, split: str, report: Report) -> Iterator[Record]:
    folder = report.require(root / split)
    photos, _ = list_images([folder])
    given = {name: _given(folder / f"{name}.json", read) for name, read in _READERS.items()}
    for photo in photos:
        found: list[Record] = []
        with report.skipping():
            found = _people(photo.path, split, given)
        yield from found


def _given(path: Path, read: Any) -> dict[str, Any] | None:
    return read(path) if path.is_file() else None


_READERS = {"keypoints": user.read_keypoints, "boxes": user.read_boxes, "cameras": user.read_cameras}


def _people(path: Path, split: str, given: dict[str, Any]) -> list[Record]:
    """A record for each person of a photo.

    Raises:
      InputError: the photo is damaged, or nothing was given for it, or what was given does not fit it or each other.
    """
    image, (width, height) = _upright(path)
    fit = _fit(path)
    keypoints = _keypoints(path, (width, height), given["keypoints"], fit)
    fit = _matched(fit, keypoints)
    boxes = user.boxes_of_image(given["boxes"], path, (width, height)) if given["boxes"] else [_box(points, path) for points in keypoints]
    own = _matrix(_camera_of(fit), (width, height))
    intrinsics = _matrix(user.camera_of_image(given["cameras"], path), (width, height)) if given["cameras"] else own
    for what, rows in (("boxes", boxes), ("fits", fit.get("global_orient", keypoints))):
        if len(rows) != len(keypoints):
            problem = f"has {len(rows)} {what} but keypoints of {len(keypoints)} people"
            raise InputError(path, problem, "give one for each, in the same order")
    records = []
    for number, (points, box) in enumerate(zip(keypoints, boxes, strict=True)):
        body44 = keypoints_by_name(points[list(_NAMES)].astype(np.float64), tuple(_NAMES.values()))
        labels = {"box": box, "keypoints2d": np.where(body44[:, 2:] > 0, body44, 0.0)}
        if intrinsics is not None:
            labels["intrinsics"] = intrinsics
        labels |= _body(fit, number, own is not None and np.allclose(own, intrinsics, rtol=0.01))
        where = f"{path}, person {number}"
        records.append(
            person_record(where, image=image, image_name=path.name, image_size=(width, height), sequence=split, person=number, **labels)
        )
    return records


def _upright(path: Path) -> tuple[bytes, tuple[int, int]]:
    """The photo's bytes, and width and height in px; what is turned by EXIF, or no plain JPEG or PNG, becomes an upright JPEG."""
    pixels = read_image(path)
    size = pixels.shape[1], pixels.shape[0]
    with Image.open(path) as image:
        turned = image.getexif().get(0x0112, 1) != 1
        if image.format in ("JPEG", "PNG") and image.mode in ("RGB", "L") and not turned:
            return path.read_bytes(), size
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue(), size


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


def _matched(fit: dict[str, np.ndarray], keypoints: Float[np.ndarray, "P 23 3"]) -> dict[str, np.ndarray]:
    """The fit's rows in the order of the people, found by the keypoints that it was made to, if it does not have all of them: `genhmr
    recover` leaves out whom it sees too little of. NaN for those."""
    if "keypoints2d" not in fit or len(fit["keypoints2d"]) == len(keypoints):
        return fit
    rows = []
    for points in keypoints:
        gaps = [np.abs(mine - points).max() for mine in fit["keypoints2d"]]
        rows.append(int(np.argmin(gaps)) if gaps and min(gaps) < 1.0 else -1)  # px; -1 is the row of NaN
    nobody = {name: np.full((1, *fit[name].shape[1:]), np.nan) for name in _OF_ONE if name in fit}
    return fit | {name: np.concatenate([fit[name], nan])[rows] for name, nan in nobody.items()}


def _keypoints(path: Path, size: tuple[int, int], given: Any, fit: dict[str, np.ndarray]) -> Float[np.ndarray, "P 23 3"]:
    """From keypoints.json, from OpenPose's file beside the photo, or those that a fit was made to; the first that is there."""
    beside = path.with_name(f"{path.stem}{user.OPENPOSE_SUFFIX}.json")
    if given is None and beside.is_file():
        given = user.read_keypoints(beside)
    if given is None and "keypoints2d" in fit:
        points = fit["keypoints2d"].astype(np.float32)
        given = {path.stem: np.where(points[..., 2:] >= MIN_CONFIDENCE, points, 0.0)}
    if given is None:
        raise InputError(path, f"has no keypoints: neither keypoints.json nor {beside.name} nor a fit with keypoints", "give one of them")
    return user.keypoints_of_image(given, path, size)


def _box(points: Float[np.ndarray, "23 3"], path: Path) -> Float[np.ndarray, "4"]:
    seen = points[points[:, 2] > 0, :2]
    if len(seen) < 2:
        raise InputError(path, "a person has a single keypoint, which makes no box", "leave the person out, or give boxes.json")
    return tight_square(seen, _MARGIN)


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
        "keypoints in own_photos/train/keypoints.json (ours, COCO's or OpenPose's form: genhmr_jax/detect/user.py), or OpenPose's "
        "STEM_keypoints.json beside each photo. Perhaps boxes.json and cameras.json beside it, and fits of SMPL in "
        "own_photos/train/fits/STEM.npz: global_orient (P, 3), body_pose (P, 69) axis-angle in camera coordinates, betas (P, 10), with "
        "translation (P, 3) and focal_length if known, the people in the order of the keypoints, NaN for who has no fit. What `genhmr "
        "recover` writes is such a file; its keypoints are taken where you give none.",
        licence="yours",
        citation="",
        read=_read,
    ),
)
