"""The arrays of a scene in few bytes, as the page's script reads them (assets/viewer/data.js).

All numbers are little-endian. Equal arrays are stored once.
"""

import base64
import hashlib

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.motion import Motion
from genhmr_jax.render.rest import Rest
from genhmr_jax.render.viewer.scene import PersonScene, Scene

UNKNOWN = 255
"""Stands for a confidence that is not known; 0..254 stand for 0..1."""
QUATERNION = 32767


class Blobs:
    """Binary data of a page, each stored once, by an identifier that is also its element's."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._names: dict[bytes, str] = {}

    def add(self, data: bytes) -> str:
        """Store bytes, and return their identifier."""
        digest = hashlib.sha256(data).digest()
        if digest not in self._names:
            self._names[digest] = f"blob-{len(self._names)}"
            self._texts[self._names[digest]] = base64.b64encode(data).decode()
        return self._names[digest]

    def array(self, values: np.ndarray) -> dict:
        """Store an array; what the page needs to read it."""
        values = np.asarray(values)
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        return {"blob": self.add(little.tobytes()), "type": values.dtype.name}

    def texts(self) -> dict[str, str]:
        """Identifier -> base64."""
        return self._texts


def scene_header(scene: Scene, blobs: Blobs) -> dict:
    """What the page reads first: the scene as JSON, with arrays put into `blobs`."""
    world = None
    if scene.world_rotation is not None:
        shift = np.asarray(scene.world_translation, np.float64)
        rotation = np.asarray(scene.world_rotation, np.float64)
        world = {"rotation": rotation.ravel().tolist(), "translation": shift.tolist()}
    return {
        "title": scene.title,
        "imageSize": [int(side) for side in scene.image_size],
        "focal": float(scene.focal),
        "principalPoint": [float(value) for value in scene.principal_point],
        "times": [round(float(time - scene.times[0]), 6) for time in scene.times],
        "world": world,
        "beforeName": scene.before_name,
        "people": [_person(person, blobs) for person in scene.people],
        "frames": [blobs.add(frame) for frame in scene.frames[1:]],  # the first one is an <img>
        "downloads": [
            {"name": name, "size": len(data), "blob": blobs.add(bytes(data))}
            for name, data in scene.downloads.items()
        ],
    }


def _person(person: PersonScene, blobs: Blobs) -> dict:
    motion, trace = person.motion, person.trace
    return {
        "name": motion.name,
        "body": _body(person.body, blobs),
        "state": blobs.array(person.motion.state.astype(np.uint8)),
        "confidence": blobs.array(pack_confidence(motion.confidence)),
        "result": _track(motion, blobs),
        "hypotheses": [_track(hypothesis, blobs) for hypothesis in person.hypotheses],
        "before": _track(person.before, blobs) if person.before else None,
        "trace": _poses(trace.poses, trace.translation, blobs) if trace else None,
    }


def _track(motion: Motion, blobs: Blobs) -> dict:
    """A motion; rows without a meaning become zero."""
    known = motion.present[:, None]
    poses = np.where(known[..., None], motion.poses, 0)
    track = _poses(poses, np.where(known, motion.translation, 0), blobs)
    return track | {"present": blobs.array(motion.present.astype(np.uint8))}


def _poses(
    poses: Float[np.ndarray, "N J 3"], translation: Float[np.ndarray, "N 3"], blobs: Blobs
) -> dict:
    return {
        "count": len(poses),
        "rotations": blobs.array(pack_rotations(poses)),
        "translation": blobs.array(np.asarray(translation, np.float32)),
    }


def _body(body: Rest, blobs: Blobs) -> dict:
    vertices, low, high = pack_vertices(body.vertices)
    small = len(body.vertices) <= 1 << 16
    return {
        "vertices": blobs.array(vertices),
        "low": low.tolist(),
        "high": high.tolist(),
        "joints": np.asarray(body.joints, np.float64).round(6).ravel().tolist(),
        "parents": [int(parent) for parent in body.parents],
        "weightJoints": blobs.array(np.asarray(body.skin_joints).astype(np.uint8)),
        "weights": blobs.array(pack_weights(body.skin_weights)),
        "faces": blobs.array(np.asarray(body.faces).astype(np.uint16 if small else np.uint32)),
    }


def pack_vertices(
    vertices: Float[np.ndarray, "V 3"],
) -> tuple[np.ndarray, Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
    """Vertices as shares of their box in 16 bits: 0.03 mm a step for a body of 2 m.

    Returns:
      (V, 3) uint16; the corners of the box (3,) and (3,), metres.
    """
    points = np.asarray(vertices, np.float64)
    low, high = points.min(0), points.max(0)
    shares = (points - low) / np.maximum(high - low, 1e-9)
    return (shares * 65535).round().astype(np.uint16), low, high


def pack_weights(weights: Float[np.ndarray, "V 4"]) -> UInt8[np.ndarray, "V 4"]:
    """Weights in steps of 1/255. Each row sums to 255, by the method of the largest remainder."""
    scaled = np.asarray(weights, np.float64)
    scaled = scaled / scaled.sum(-1, keepdims=True) * 255
    whole = np.floor(scaled + 1e-9)
    missing = 255 - whole.sum(-1)
    order = np.argsort(whole - scaled, axis=-1, kind="stable")  # the largest remainder first
    rank = np.argsort(order, axis=-1, kind="stable")
    return (whole + (rank < missing[:, None])).astype(np.uint8)


def pack_rotations(poses: Float[np.ndarray, "N J 3"]) -> Int[np.ndarray, "N J 4"]:
    """Axis-angle as quaternions x, y, z, w in 16 bits, with w >= 0: within 0.0001 radians."""
    flat = np.asarray(poses, np.float64).reshape(-1, 3)
    quaternions = Rotation.from_rotvec(flat).as_quat(canonical=True)
    return (quaternions * QUATERNION).round().astype(np.int16).reshape(*np.shape(poses)[:2], 4)


def pack_confidence(confidence: Float[np.ndarray, "F J"]) -> UInt8[np.ndarray, "F J"]:
    """Confidence 0..1 as 0..254; NaN as UNKNOWN."""
    values = np.asarray(confidence, np.float64)
    known = np.isfinite(values)
    steps = (np.where(known, values, 0).clip(0, 1) * (UNKNOWN - 1)).round()
    return np.where(known, steps, UNKNOWN).astype(np.uint8)
