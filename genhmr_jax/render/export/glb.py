"""Skinned, animated bodies as one glTF 2.0 binary file (.glb)."""

import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int16, UInt16
from smpl_jax import SmplModel

from genhmr_jax.geometry.motion import Motion
from genhmr_jax.render.export.colours import ROUGHNESS, linear_colour
from genhmr_jax.render.export.gltf import INDEX_DATA, VERTEX_DATA, Document
from genhmr_jax.render.export.timeline import quaternion_track
from genhmr_jax.render.rest import Rest, rest_of

_WEIGHT_ONE, _ROTATION_ONE = 65535, 32767  # integers that stand for 1
_LARGEST_UINT16_MESH = 65535  # vertices; the index 65535 itself is reserved


def save_glb(path: str | os.PathLike, motions: Sequence[Motion], body: SmplModel) -> None:
    """Write people as skinned meshes; with an animation unless all motions have one frame.

    Axes: y up, metres. Camera axes are turned by half a turn about x, so that the camera of the
    photo stands at the origin and looks along -z, as a glTF camera does.

    A person has a node of its name, below which are the joints' nodes, and a node NAME mesh. The
    animation has for each person a rotation track of each joint and a translation track of the
    pelvis (LINEAR), in seconds from the first frame of all motions. Rotations are normalised 16-bit
    integers, exact to 0.01 degrees. A person who is not in all frames has a scale track (STEP): 1
    where the person is present, 0 elsewhere. Without an animation, and before it plays, the nodes
    hold the pose of the first known frame.

    The mesh is that of each person's shape. Blend shapes of the pose, which correct the skinned
    surface, are not stored: joints are exact, and the surface differs by millimetres to a few
    centimetres at strongly bent joints.

    Args:
      path: of the file.
      motions: of the people; all in the same axes.
      body: the body of the motions.

    Raises:
      ValueError: no people, or a person who is in no frame.
      InputError: the file cannot be written.
    """
    if not motions:
        raise ValueError("no motions to write")
    document, roots = Document(), []
    start = min(motion.times[0] for motion in motions)
    tracks = _Tracks(document, start)
    for number, motion in enumerate(motions):
        # 1. The pose of each known frame, and of those between them.
        rest = rest_of(body, motion.betas)
        known = motion.continuous()
        quaternions, positions = quaternion_track(known, rest.joints[0])
        # 2. The skeleton in the first pose, and the mesh.
        person, joints = _add_skeleton(document, motion.name, rest, quaternions[0], positions[0])
        mesh = _add_mesh(document, motion.name, rest, number)
        skin = _add_skin(document, rest, person, joints)
        drawn = {"name": f"{motion.name} mesh", "mesh": mesh, "skin": skin}
        roots += [person, document.add("nodes", drawn)]
        # 3. The motion.
        if max(map(len, motions)) > 1:
            tracks.add_pose(joints, known.times, quaternions, positions)
            tracks.add_presence(person, motion)
    tracks.finish()
    document.save(path, roots)


class _Tracks:
    """The channels and samplers of the one animation, as `document` grows."""

    def __init__(self, document: Document, start: float) -> None:
        self.document, self.start = document, start
        self.channels: list[dict] = []
        self.samplers: list[dict] = []

    def add_pose(
        self,
        joints: list[int],
        times: Float[np.ndarray, "F"],
        quaternions: Float[np.ndarray, "F J 4"],
        positions: Float[np.ndarray, "F 3"],
    ) -> None:
        """The rotations of the joints' nodes, and the translation of the first."""
        for node, values in zip(joints, quaternions.swapaxes(0, 1), strict=True):
            output = self.document.accessor(_to_int16(values), "VEC4", normalized=True)
            self._add(node, "rotation", "LINEAR", times, output)
        output = self.document.accessor(positions.astype(np.float32), "VEC3")
        self._add(joints[0], "translation", "LINEAR", times, output)

    def add_presence(self, person: int, motion: Motion) -> None:
        """The scale of a person who is absent from some frames."""
        if motion.present.all():
            return
        changes = np.diff(motion.present, prepend=~motion.present[:1])
        kept = np.flatnonzero(changes)
        scales = np.repeat(motion.present[kept, None], 3, 1).astype(np.float32)
        output = self.document.accessor(scales, "VEC3")
        self._add(person, "scale", "STEP", motion.times[kept], output)

    def _add(
        self, node: int, path: str, interpolation: str, times: np.ndarray, output: int
    ) -> None:
        seconds = (times - self.start).astype(np.float32)
        clock = self.document.accessor(seconds, "SCALAR", bounds=True)
        self.samplers.append({"input": clock, "output": output, "interpolation": interpolation})
        target = {"node": node, "path": path}
        self.channels.append({"sampler": len(self.samplers) - 1, "target": target})

    def finish(self) -> None:
        """Add the animation to the document, if there is one."""
        if self.channels:
            animation = {"name": "motion", "channels": self.channels, "samplers": self.samplers}
            self.document.add("animations", animation)


def _add_skeleton(
    document: Document,
    name: str,
    rest: Rest,
    quaternions: Float[np.ndarray, "J 4"],
    position: Float[np.ndarray, "3"],
) -> tuple[int, list[int]]:
    """The node of a person, and those of the joints, in a pose."""
    first = len(document.lists.get("nodes", [])) + 1
    person = document.add("nodes", {"name": name, "children": [first]})
    for joint, parent in enumerate(rest.parents):
        node = {
            "name": rest.names[joint],
            "translation": (position if parent < 0 else rest.offsets[joint]).tolist(),
            "rotation": quaternions[joint].tolist(),
        }
        if children := [first + j for j, above in enumerate(rest.parents) if above == joint]:
            node["children"] = children
        document.add("nodes", node)
    return person, list(range(first, first + len(rest.parents)))


def _add_mesh(document: Document, name: str, rest: Rest, number: int) -> int:
    """The rest mesh of a person with a colour of its own; faces and weights are shared by all."""
    small = len(rest.vertices) <= _LARGEST_UINT16_MESH
    indices = rest.faces.reshape(-1).astype(np.uint16 if small else np.uint32)
    attributes = {
        "POSITION": document.accessor(
            rest.vertices.astype(np.float32), "VEC3", VERTEX_DATA, bounds=True
        ),
        "NORMAL": document.accessor(rest.normals.astype(np.float32), "VEC3", VERTEX_DATA),
        "JOINTS_0": document.accessor(rest.skin_joints.astype(np.uint8), "VEC4", VERTEX_DATA),
        "WEIGHTS_0": document.accessor(
            _to_uint16(rest.skin_weights), "VEC4", VERTEX_DATA, normalized=True
        ),
    }
    primitive = {
        "attributes": attributes,
        "indices": document.accessor(indices, "SCALAR", INDEX_DATA),
        "material": document.add("materials", _material(name, number)),
    }
    return document.add("meshes", {"name": name, "primitives": [primitive]})


def _material(name: str, number: int) -> dict:
    """A plain material of the colour that pictures give this person."""
    factors = {
        "baseColorFactor": [*linear_colour(number).tolist(), 1.0],
        "metallicFactor": 0.0,
        "roughnessFactor": ROUGHNESS,
    }
    return {"name": name, "pbrMetallicRoughness": factors}


def _add_skin(document: Document, rest: Rest, person: int, joints: list[int]) -> int:
    """The skin: the inverse of a joint's rest motion is a translation, in columns (3.7.3.1)."""
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(joints), 1, 1))
    inverse[:, 3, :3] = -rest.joints
    matrices = document.accessor(inverse.reshape(-1, 16), "MAT4")
    skin = {"inverseBindMatrices": matrices, "skeleton": person, "joints": joints}
    return document.add("skins", skin)


def _to_int16(quaternions: Float[np.ndarray, "F 4"]) -> Int16[np.ndarray, "F 4"]:
    """Numbers of -1..1 as normalised integers."""
    return np.round(quaternions * _ROTATION_ONE).astype(np.int16)


def _to_uint16(weights: Float[np.ndarray, "V 4"]) -> UInt16[np.ndarray, "V 4"]:
    """Weights as normalised integers that sum to exactly 1; the first and largest gives way."""
    integers = np.round(weights * _WEIGHT_ONE).astype(np.int64)
    integers[:, 0] += _WEIGHT_ONE - integers.sum(axis=1)
    return integers.astype(np.uint16)
