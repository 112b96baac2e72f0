"""Shared by the sources of people: photos as bytes, boxes, keypoint orders, and camera motions.

Pixels: in every release the principal point of a W x H image is close to (W/2, H/2), or unknown.
Their numbers are used unchanged, in our convention (a pixel centre is at +0.5). Detected or clicked
points may be off by that half pixel.
"""

import io
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float
from PIL import Image
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import BODY44, JOINT_OF_KEYPOINT, OPENPOSE25, OPENPOSE25_FROM_SMPL45, SMPL24

from genhmr_jax.data.sources.reading import bare, numbers
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import open_bytes

_SKELETAL = {
    name: SMPL24.index(JOINT_OF_KEYPOINT[name]) for name in OPENPOSE25 if name in JOINT_OF_KEYPOINT
}
_LARGEST_BOX = 10.0  # image sides; a close person extends beyond the image
_SMALLEST_BOX = 8.0  # px, for scales in pixels: scales over 200 px would be smaller
_SKIP = "leave it out with --skip-bad"


def read_photo(root: Path, name: str, where: object) -> bytes:
    """The bytes of the image `name` of an annotation, in the folder `root`.

    Raises:
      InputError: the image is absent, cannot be read, or its name leads out of the folder.
    """
    if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
        problem = f"its image {name!r} would lie outside of {root}"
        raise InputError(where, problem, "do not trust this file; download it again")
    path = root / name
    try:
        if not path.is_file():
            remedy = f"download or unpack the images again, or {_SKIP}"
            raise InputError(where, f"its image {path} is absent", remedy)
        return path.read_bytes()
    except OSError as error:
        problem = f"its image {path} cannot be read ({error.strerror})"
        raise InputError(where, problem, "check its permissions") from error


def photo_size(data: bytes, where: object) -> tuple[int, int]:
    """Width and height in px, from the header alone.

    The EXIF orientation is not applied, as in all code that made these datasets.

    Raises:
      InputError: not an image, or the end of a JPEG or PNG is missing.
    """
    try:
        with open_bytes(data) as image:
            size, kind = image.size, image.format
    except Exception as error:  # Pillow's format plug-ins raise many types on broken headers
        remedy = f"download it again, or {_SKIP}"
        raise InputError(where, "its image cannot be read", remedy) from error
    end = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}.get(kind, b"")
    if end not in data[-1024:]:
        raise InputError(where, "its image is cut short", f"download it again, or {_SKIP}")
    return size


def turned_clockwise(data: bytes, where: object) -> bytes:
    """The image after a quarter turn clockwise: PNG stays PNG, others become JPEG of quality 95.

    Raises:
      InputError: it cannot be decoded.
    """
    try:
        with open_bytes(data) as image:
            kind, turned = image.format, image.convert("RGB").transpose(Image.Transpose.ROTATE_270)
    except Exception as error:  # decoders raise many types
        remedy = f"download it again, or {_SKIP}"
        raise InputError(where, "its image cannot be decoded", remedy) from error
    stream = io.BytesIO()
    if kind == "PNG":
        turned.save(stream, "PNG", compress_level=1)
    else:
        turned.save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()


def mask_png(mask: np.ndarray, size: tuple[int, int], where: object) -> bytes:
    """A mask (H, W) as PNG bytes, 255 inside.

    Raises:
      InputError: not of the image's size.
    """
    if mask.shape != size[::-1]:
        problem = f"its mask has shape {mask.shape} in an image of {size[0]} x {size[1]} px"
        raise InputError(where, problem, "download the shard again")
    stream = io.BytesIO()
    Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def flat_numbers(
    value: object, count: int | None, name: str, where: object, *, finite: bool = True
) -> Float[np.ndarray, "N"]:
    """Numbers that releases write as a scalar, a list or an array, as float64.

    Args:
      value: of the release.
      count: the required number; None is any number.
      name: of the value, for errors.
      where: the file and record, for errors.
      finite: whether all must be finite.

    Raises:
      InputError: not numbers, another number of them, or not finite.
    """
    try:
        array = numbers(np.asarray(bare(value), np.float64).reshape(-1), (count,), name, where)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        problem = f"{name} is not made of numbers ({error})"
        raise InputError(where, problem, "is this the official release?") from error
    if finite and not np.isfinite(array).all():
        problem = f"{name} has numbers that are not finite"
        raise InputError(where, problem, "leave this record out with --skip-bad")
    return array


def box_of_scale(
    center: object,
    scale: object,
    pixels: float,
    size: tuple[int, int],
    unit: str,
    where: object,
    *,
    crops: bool = False,
) -> Float[np.ndarray, "4"]:
    """xyxy px of a box given by its centre (px) and scale: one number, or width and height.

    The crop of a box is camera.square_around: a box wider than 3 : 4 grows to that first, as in
    `expand_to_aspect_ratio` of 4D-Humans (hmr2/datasets/utils.py, L14). The meaning of a single
    number depends on the loader. Loaders of npz files repeat it (hmr2/datasets/image_dataset.py,
    L86, and TokenHMR's emdb_dataset.py, L63): it is a square box, which grows. Loaders of tars do
    not, and `expand_to_aspect_ratio` returns one number unchanged: it is the side of the crop.

    Args:
      center: of the box, px.
      scale: of the release.
      pixels: px of a scale of 1: 200 in most releases, 1 in some.
      size: of the image, px.
      unit: of the scale in words, for errors.
      crops: whether one number is the side of the crop, so that the box is its middle 3/4, whose
        crop is that square again; else one number is the side of a square box.

    Raises:
      InputError: not numbers, or a box too small or too large for a person: wrong units.
    """
    centre = flat_numbers(center, 2, "center", where)
    sides = pixels * flat_numbers(scale, None, "scale", where)
    if len(sides) not in (1, 2):
        problem = f"its scale has {len(sides)} numbers"
        raise InputError(where, problem, "it must have one, or width and height")
    longest = sides.max()
    least = _SMALLEST_BOX if pixels == 1.0 else 0.0
    if not least <= longest <= _LARGEST_BOX * max(size):
        side = f"wrong units: its box has a side of {longest:.4g} px"
        problem = f"{side} in an image of {size[0]} x {size[1]} px"
        remedy = f"its scale should be {unit}; {_SKIP} if only this one is wrong"
        raise InputError(where, problem, remedy)
    if crops and len(sides) == 1:
        sides = sides * np.array([0.75, 1.0])
    return np.concatenate([centre - sides / 2, centre + sides / 2])


def tight_square(points: Float[np.ndarray, "K 2"], factor: float) -> Float[np.ndarray, "4"]:
    """xyxy of the square around points: `factor` x their longer extent."""
    low, high = points.min(0), points.max(0)
    half = factor * (high - low).max() / 2
    return np.concatenate([(low + high) / 2 - half, (low + high) / 2 + half])


def keypoints_by_name(
    points: Float[np.ndarray, "K C"], names: tuple[str, ...]
) -> Float[np.ndarray, "44 C"]:
    """Named points in the order of BODY44; the others are zero, also in confidence."""
    result = np.zeros((len(BODY44), points.shape[1]))
    result[[BODY44.index(name) for name in names]] = points
    return result


def keypoints_of_joints(points: Float[np.ndarray, "24 C"]) -> Float[np.ndarray, "44 C"]:
    """SMPL's 24 joints in the order of BODY44: OpenPose's neck to ankles; the others are zero."""
    return keypoints_by_name(
        points[list(_SKELETAL.values())], tuple(f"openpose_{name}" for name in _SKELETAL)
    )


def keypoints_of_smpl45(points: Float[np.ndarray, "45 C"]) -> Float[np.ndarray, "44 C"]:
    """SMPL's 24 joints and 21 vertices (smpl_jax.keypoints.SMPL45) in the order of BODY44.

    They give all of OpenPose's 25; the others are zero.
    """
    return keypoints_by_name(
        points[list(OPENPOSE25_FROM_SMPL45)], tuple(f"openpose_{name}" for name in OPENPOSE25)
    )


def known_only(points: Float[np.ndarray, "... C"]) -> Float[np.ndarray, "... C"]:
    """The points, zero where the confidence (last) is not above 0 or a number is not finite."""
    points = np.asarray(points, np.float64)
    known = np.isfinite(points).all(-1) & (points[..., -1] > 0)
    return np.where(known[..., None], points, 0.0)


def camera_motion(
    matrices: Float[np.ndarray, "N 4 4"], valid: np.ndarray, where: object
) -> tuple[Float[np.ndarray, "N 3 3"], Float[np.ndarray, "N 3"]]:
    """Rotation and shift (metres) of world-to-camera matrices.

    Matrices of frames that are not valid may hold anything and become the identity.

    Raises:
      InputError: the matrix of a valid frame is not a rotation and shift.
    """
    turn = np.where(valid[:, None, None], matrices[:, :3, :3], np.eye(3))
    shift = np.where(valid[:, None], matrices[:, :3, 3], 0.0)
    error = np.abs(np.einsum("nij,nkj->nik", turn, turn) - np.eye(3)).max((1, 2))
    wrong = ~(error < 1e-2) | ~np.isfinite(shift).all(1) | (np.linalg.det(turn) < 0)
    if wrong.any():
        problem = f"the camera of frame {np.flatnonzero(wrong)[0]} is not a rotation and shift"
        raise InputError(where, problem, "download it again")
    return turn, shift


def root_in_camera(
    root: Float[np.ndarray, "N 3"], turn: Float[np.ndarray, "N 3 3"]
) -> Float[np.ndarray, "N 3"]:
    """Root orientation (axis-angle) in the camera, R_camera R_root; NaN where the root is NaN."""
    known = np.isfinite(root).all(-1, keepdims=True)
    turned = Rotation.from_matrix(turn) * Rotation.from_rotvec(np.where(known, root, 0.0))
    return np.where(known, turned.as_rotvec(), np.nan)


def translation_in_camera(
    translation: Float[np.ndarray, "N 3"],
    pelvis: Float[np.ndarray, "3"],
    turn: Float[np.ndarray, "N 3 3"],
    shift: Float[np.ndarray, "N 3"],
) -> Float[np.ndarray, "N 3"]:
    """SMPL's translation after the camera's motion x -> R x + t, metres.

    SMPL turns about the pelvis, which is at `pelvis` in the rest pose and not at the origin, so
    that T' = R (T + pelvis) + t - pelvis.
    """
    return np.einsum("nij,nj->ni", turn, translation + pelvis) + shift - pelvis


def rest_pelvis(
    pixels: Float[np.ndarray, "N 2"],
    translation: Float[np.ndarray, "N 3"],
    turn: Float[np.ndarray, "N 3 3"],
    shift: Float[np.ndarray, "N 3"],
    intrinsics: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "3"] | None:
    """The pelvis of a shape in the rest pose, metres, from its exact projections in a sequence.

    In each frame K (R (T + p) + t) projects to (u, v): two equations linear in p, solved for all
    frames together by least squares.

    Returns:
      p, or None if the views are too similar to determine its depth, or if its projections miss the
      pixels by 1 px or more.
    """
    # (N, 2, 3): rows whose product with a point on the ray is 0.
    lines = intrinsics[None, :2] - pixels[:, :, None] * intrinsics[None, 2:]
    matrix = np.einsum("nij,njk->nik", lines, turn)
    known = np.einsum("nij,nj->ni", lines, np.einsum("nij,nj->ni", turn, translation) + shift)
    pelvis, _, rank, singular = np.linalg.lstsq(
        matrix.reshape(-1, 3), -known.reshape(-1), rcond=None
    )
    if rank < 3 or singular[-1] < 0.02 * singular[0]:
        return None
    points = np.einsum("nij,nj->ni", turn, translation + pelvis) + shift
    projected = points @ intrinsics.T
    error = np.abs(projected[:, :2] / projected[:, 2:] - pixels).max()
    return pelvis if error < 1.0 else None
