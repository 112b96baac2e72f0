"""The answer to a photo: JSON, an .npz file, a GLB file, or the viewer page."""

import dataclasses
import io
import json
from typing import Any

import numpy as np
import smpl_jax
from jaxtyping import UInt8

from genhmr_jax.recover.pages import photo_scene
from genhmr_jax.recover.people import People
from genhmr_jax.recover.report import behind_camera
from genhmr_jax.render.export.mesh import glb_scene
from genhmr_jax.render.viewer.page import page

FORMATS = {
    "json": "application/json",
    "npz": "application/x-npz",
    "glb": "model/gltf-binary",
    "html": "text/html; charset=utf-8",
}
"""Media type of each format; the first is the default."""
OF_PERSON = (
    "keypoints2d", "global_orient", "body_pose", "betas", "weak_camera", "translation", "joints",
    "joints2d", "joint_confidence",
)  # fmt: skip
OF_PHOTO = (
    "image_size", "focal_length", "principal_point", "joint_names", "keypoint_names", "left_out",
)  # fmt: skip
"""Arrays of `People` in the JSON answer, under the same names. Meshes are in the other formats."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """The body of a response and its media type. people: number of people in it."""

    body: bytes
    media_type: str
    people: int


def answer(
    people: People,
    format: str,
    focal_from: str,
    panel: UInt8[np.ndarray, "h w 3"] | None,
    body: smpl_jax.SmplModel,
) -> Answer:
    """The answer in a format of FORMATS.

    Args:
      people: the result.
      format: of the answer.
      focal_from: where the focal length comes from: "given", "EXIF" or "guess".
      panel: the photo, which the viewer page shows.
      body: with which the result was made.
    """
    if format == "json":
        content = json.dumps(_fields(people, focal_from), allow_nan=False).encode()
    elif format == "npz":
        content = _npz(people)
    elif format == "glb":
        content = glb_scene(people.vertices, people.faces)
    else:
        files = {"people.npz": _npz(people), "people.glb": glb_scene(people.vertices, people.faces)}
        content = page(photo_scene("Photo", panel, people, body, downloads=files)).encode()
    return Answer(content, FORMATS[format], len(people))


def format_of(accept: str | None) -> str | None:
    """The format that an Accept header asks for; None: none that there is.

    The formats are in the order of FORMATS where the client has no preference (RFC 9110, 12.5.1).
    """
    if not (accept or "").strip():
        return next(iter(FORMATS))
    weights = {}
    for part in str(accept).split(","):
        kind, *parameters = (text.strip().lower() for text in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        try:
            weights[kind] = float(weight)
        except ValueError:
            weights[kind] = 0.0
    best, most = None, 0.0
    for name, media_type in FORMATS.items():
        kind = media_type.partition(";")[0]
        ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        weight = next((weights[text] for text in ranges if text in weights), 0.0)
        if weight > most:
            best, most = name, weight
    return best


def _fields(people: People, focal_from: str) -> dict[str, Any]:
    """The JSON answer; NaN (no estimate) is null."""
    arrays = people.arrays()
    warning = behind_camera(people)
    return {
        "people": [
            {"box": _plain(people.boxes[i])} | {name: _plain(arrays[name][i]) for name in OF_PERSON}
            for i in range(len(people))
        ],
        **{name: _plain(arrays[name]) for name in OF_PHOTO},
        "focal_from": focal_from,
        "warnings": [] if warning is None else [warning],
    }


def _plain(array: np.ndarray) -> Any:
    """Nested lists of an array. Numbers that are not finite become None, as JSON has no others."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return np.where(np.isfinite(array), array.astype(object), None).tolist()
    return array.tolist()


def _npz(people: People) -> bytes:
    stream = io.BytesIO()
    people.write(stream)
    return stream.getvalue()
