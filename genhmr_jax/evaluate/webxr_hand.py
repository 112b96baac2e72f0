"""A benchmark on a hand mesh that no training has seen: the generic hand of WebXR.

    npm pack @webxr-input-profiles/assets@1.0.20
    tar -xzf webxr-input-profiles-assets-1.0.20.tgz package/dist/profiles/generic-hand/right.glb
    python -m genhmr_jax.evaluate.webxr_hand --glb package/dist/profiles/generic-hand/right.glb

The file is not part of the package (94 kB, MIT licence, (c) 2019 Amazon). The hand has the 25
joints of the W3C "WebXR Hand Input Module" and linear blend skinning. Its shape, its skeleton and
its skinning have another origin than those of the training hands. So the errors show what a model
has learned about its own mesh only. The renderer, the backgrounds and the rules of the prior of
poses are those of the training.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import struct
from typing import Any

import jax
import numpy as np
import smpl_jax
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from smpl_jax.blocks import make_blocks

from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.data.hands.prior import HandPrior
from genhmr_jax.data.hands.render import draw_sample
from genhmr_jax.data.synthetic.backgrounds import Backgrounds
from genhmr_jax.evaluate.hands import KINDS, HandPicture, measure, mirrored
from genhmr_jax.geometry.hand import FINGERS, HAND_JOINTS, TIPS
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand, path_argument
from genhmr_jax.recover.hands import load_hands
from genhmr_jax.recover.photo import RecoverOptions

WEBXR = (
    "Rendered hands of the WebXR mesh, which is not trained on, one a picture. The fields are "
    "those of the benchmark of hands. There are no errors of vertices, as the meshes differ. The "
    "keypoints are the joints of that skeleton; its tips are 9 to 13 mm inside the skin. The free "
    "hand has other proportions: fitted to the true keypoints, it has an error of 7.5 mm."
)
SOURCE = (
    "`npm pack @webxr-input-profiles/assets@1.0.20`, dist/profiles/generic-hand/right.glb in it"
)
SHA256 = "291790c14f7f88a7f9bd35330c47392ed8e8d395ae6728f4bb7089f1bc1f2b96"
SEED = 9241  # of poses and views

_PARTS = ("metacarpal", "phalanx-proximal", "phalanx-intermediate", "phalanx-distal", "tip")
WEBXR_FINGERS = {
    name: tuple(
        f"{name}-{part}" if name == "thumb" else f"{name}-finger-{part}"
        for part in _PARTS
        if name != "thumb" or part != "phalanx-intermediate"
    )
    for name in FINGERS
}
"""The joints of each finger, from the palm outwards, in the order of TIPS."""
WEBXR_JOINTS = ("wrist", *(joint for finger in WEBXR_FINGERS.values() for joint in finger))
"""The 25 joints: wrist, then 4 of the thumb and 5 of each finger. w3.org/TR/webxr-hand-input-1."""
PARENTS = (
    -1,
    *(
        0 if i == 0 else WEBXR_JOINTS.index(finger[i - 1])
        for finger in WEBXR_FINGERS.values()
        for i in range(len(finger))
    ),
)
"""The parent of each of the 25 joints; the bones of the palm are fixed to the wrist."""
HAND21_FROM_WEBXR = np.array(
    [0, *(WEBXR_JOINTS.index(joint) for f in WEBXR_FINGERS.values() for joint in f[-4:])]
)
"""`points[..., HAND21_FROM_WEBXR, :]` takes the 25 joints to the order HAND21."""

_MOVED = {
    HAND_JOINTS[joint]: WEBXR_JOINTS.index(name)
    for finger, joints in FINGERS.items()
    for joint, name in zip(joints, WEBXR_FINGERS[finger][-4:-1], strict=True)
} | {"wrist": 0}  # joints of MANO's form -> those of WebXR
# The file's hand has its fingers along -y, its back at +x and its thumb at -z. The rows are the
# axes of the project's right hand, with fingers along -x, back +y and thumb +z.
_TO_HAND = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
_OPEN = 0.012  # metres beyond the wrist, where the closed mesh is cut and the forearm begins
_TYPES = {5121: np.dtype("u1"), 5123: np.dtype("<u2"), 5125: np.dtype("<u4"), 5126: np.dtype("<f4")}
_SIZES = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_JSON, _BINARY = 0x4E4F534A, 0x004E4942  # types of chunks


@dataclasses.dataclass(frozen=True, eq=False)
class WebXrHand:
    """A skinned hand in the axes of the project's right hand: fingers -x, back +y, thumb +z.

    Attributes:
      vertices: (V, 3) of the mesh as it is bound, metres, in the file's own axes.
      faces: (F, 3) counter-clockwise from outside.
      weights: (V, 25) skinning weights of WEBXR_JOINTS.
      rest: (25, 4, 4) from the axes of each joint to those of the hand, in the rest pose.
      inverse_bind: (25, 4, 4) from the file's axes to those of each joint.
    """

    vertices: Float[np.ndarray, "V 3"]
    faces: Int[np.ndarray, "F 3"]
    weights: Float[np.ndarray, "V 25"]
    rest: Float[np.ndarray, "25 4 4"]
    inverse_bind: Float[np.ndarray, "25 4 4"]

    def posed(
        self, pose: Float[np.ndarray, "48"]
    ) -> tuple[Float[np.ndarray, "V 3"], Float[np.ndarray, "25 3"]]:
        """Vertices and joints of a pose, metres, by linear blend skinning in double precision.

        After the glTF 2.0 specification, 3.7.3.3: the matrix of a joint is its posed matrix times
        its inverse bind matrix, and a vertex takes their weighted sum.

        Args:
          pose: axis-angle, radians, of HAND_JOINTS, each in the axes of the rest pose and relative
            to its parent; the wrist turns about itself. Joints of the palm and tips do not bend.
        """
        turns = np.broadcast_to(np.eye(3), (25, 3, 3)).copy()
        matrices = Rotation.from_rotvec(np.reshape(pose, (16, 3)).astype(np.float64)).as_matrix()
        turns[[_MOVED[name] for name in HAND_JOINTS]] = matrices
        moves = np.zeros((25, 4, 4))
        for joint, parent in enumerate(PARENTS):
            place, move = self.rest[joint, :3, 3], np.eye(4)
            move[:3, :3] = turns[joint]
            move[:3, 3] = place - turns[joint] @ place  # about the joint
            moves[joint] = move if parent < 0 else moves[parent] @ move
        world = moves @ self.rest
        blended = np.einsum("vj,jab->vab", self.weights, (world @ self.inverse_bind)[:, :3])
        vertices = np.einsum("vab,vb->va", blended[..., :3], self.vertices) + blended[..., 3]
        return vertices, world[:, :3, 3]

    def model(self) -> smpl_jax.SmplModel:
        """The hand in MANO's form, for the prior and the renderer; without shape coefficients.

        Vertices at one place are one vertex. The wrist is open, as it is in other hands. The tips
        are five vertices without faces. The weights of joints that move together are added, so
        that its mesh and its keypoints are those of `posed`, in single precision.
        """
        vertices, joints = self.posed(np.zeros(48))
        # 1. Weld the seams of the texture, where the file repeats vertices, and open the wrist.
        _, first, same = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
        open_ = vertices[first, 0] <= joints[0, 0] + _OPEN
        faces = same.reshape(-1)[self.faces]
        faces = faces[open_[faces].all(1)]
        used, faces = np.unique(faces, return_inverse=True)
        kept = first[used]
        # 2. The weights of the 16 joints.
        weights = np.zeros((16, len(kept) + 5))
        target = list(_moving())
        np.add.at(weights[:, : len(kept)], target, self.weights[kept].T)
        tips = [WEBXR_JOINTS.index(finger[-1]) for finger in WEBXR_FINGERS.values()]
        weights[[target[tip] for tip in tips], len(kept) + np.arange(5)] = 1.0
        # 3. The model.
        points = np.concatenate([vertices[kept], joints[tips]]).astype(np.float32)
        parents = [-1, *(0 if name.endswith("1") else i for i, name in enumerate(HAND_JOINTS[1:]))]
        return smpl_jax.SmplModel(
            template=jax.device_put(np.ascontiguousarray(points.T)),
            blocks=make_blocks(np.zeros((9 * 15, 3, len(points)), np.float32), weights),
            joint_template=jax.device_put(
                joints[[_MOVED[name] for name in HAND_JOINTS]].astype(np.float32)
            ),
            joint_shapedirs=jax.device_put(np.zeros((0, 16, 3), np.float32)),
            faces=jax.device_put(faces.reshape(-1, 3).astype(np.int32)),
            parents=tuple(parents),
            joint_names=HAND_JOINTS,
            named_vertices=tuple((tip, len(kept) + i) for i, tip in enumerate(TIPS)),
        )


def _moving() -> tuple[int, ...]:
    """For each of the 25 joints the one of HAND_JOINTS that it moves with."""
    own = {joint: HAND_JOINTS.index(name) for name, joint in _MOVED.items()}
    result: list[int] = []
    for joint, parent in enumerate(PARENTS):
        result.append(own.get(joint, result[parent] if parent >= 0 else 0))
    return tuple(result)


def load_webxr_hand(path: str | os.PathLike, sha256: str | None = SHA256) -> WebXrHand:
    """Read the skinned right hand of a binary glTF file (.glb).

    Args:
      path: of the file, see SOURCE.
      sha256: of the file; None: any hand with the joints and axes of that one.

    Raises:
      InputError: no such file, another file, or not a hand with WebXR's joints.
    """
    remedy = f"get it with {SOURCE}"
    path = pathlib.Path(expand(path))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(path, (error.strerror or str(error)).lower(), remedy) from error
    if sha256 and (found := hashlib.sha256(content).hexdigest()) != sha256:
        problem = f"is another file (SHA-256 {found[:12]}..., not {sha256[:12]}...)"
        raise InputError(path, problem, remedy)
    try:
        return _parsed(content)
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        problem = f"is no glTF hand with WebXR's joints, or it is damaged ({error})"
        raise InputError(path, problem, remedy) from error


def _parsed(content: bytes) -> WebXrHand:
    """See `load_webxr_hand`. glTF 2.0 specification, 3.6 (accessors), 3.7 (skins) and 4 (GLB)."""
    chunks = _chunks(content)
    document, binary = json.loads(chunks[_JSON]), chunks[_BINARY]
    # 1. The tables of the first skin and of the mesh that it moves.
    skin = document["skins"][0]
    node = next(node for node in document["nodes"] if node.get("skin") == 0)
    primitive = document["meshes"][node["mesh"]]["primitives"][0]
    read = lambda number: _accessor(document, binary, number)
    attributes = primitive["attributes"]
    vertices = read(attributes["POSITION"]).astype(np.float64)
    used, shares = read(attributes["JOINTS_0"]), read(attributes["WEIGHTS_0"])
    faces = read(primitive["indices"]).reshape(-1, 3).astype(np.int64)
    bind = read(skin["inverseBindMatrices"]).astype(np.float64)
    bind = bind.reshape(-1, 4, 4).transpose(0, 2, 1)  # the file's are column by column
    # 2. In the order of WEBXR_JOINTS.
    names = [document["nodes"][number].get("name") for number in skin["joints"]]
    if missing := [name for name in WEBXR_JOINTS if name not in names]:
        raise ValueError(f"no joint {missing[0]}")
    order = [names.index(name) for name in WEBXR_JOINTS]
    weights = np.zeros((len(vertices), len(names)))
    np.add.at(weights, (np.arange(len(vertices))[:, None], used), shares)
    world = _world(document["nodes"])[[skin["joints"][i] for i in order]]
    rest = world.copy()
    rest[:, :3] = _TO_HAND @ world[:, :3]
    weights = weights[:, order]
    sums = weights.sum(1, keepdims=True)
    if not np.allclose(sums, 1, atol=1e-3) or faces.max() >= len(vertices) or faces.min() < 0:
        raise ValueError("weights or faces out of range")
    return WebXrHand(vertices, faces, weights / sums, rest, bind[order])


def _chunks(content: bytes) -> dict[int, bytes]:
    """The chunks of a GLB file by type."""
    magic, version, length = struct.unpack_from("<4sII", content)
    if magic != b"glTF" or version != 2 or length > len(content):
        raise ValueError("no GLB file of version 2")
    chunks, at = {}, 12
    while at < length:
        size, kind = struct.unpack_from("<II", content, at)
        chunks.setdefault(kind, content[at + 8 : at + 8 + size])
        at += 8 + size
    return chunks


def _accessor(document: dict[str, Any], binary: bytes, number: int) -> np.ndarray:
    """A table of the file, one element in each row."""
    accessor = document["accessors"][number]
    view = document["bufferViews"][accessor["bufferView"]]
    if "byteStride" in view or "sparse" in accessor or accessor.get("normalized"):
        raise ValueError("tables with a stride, sparse or normalised ones are not read")
    columns = _SIZES[accessor["type"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    kind = _TYPES[accessor["componentType"]]
    table = np.frombuffer(binary, kind, accessor["count"] * columns, start)
    return table.reshape(-1, columns)


def _world(nodes: list[dict[str, Any]]) -> Float[np.ndarray, "N 4 4"]:
    """The matrices from the axes of each node to those of the scene."""
    parents = {child: i for i, node in enumerate(nodes) for child in node.get("children", ())}
    own = np.broadcast_to(np.eye(4), (len(nodes), 4, 4)).copy()
    for matrix, node in zip(own, nodes, strict=True):
        if "matrix" in node:
            matrix[:] = np.reshape(node["matrix"], (4, 4)).T
            continue
        turn = Rotation.from_quat(node.get("rotation", (0, 0, 0, 1))).as_matrix()
        matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)))
        matrix[:3, 3] = node.get("translation", (0, 0, 0))
    world = own.copy()
    for i in range(len(nodes)):
        above, steps = parents.get(i), 0
        while above is not None and steps < len(nodes):  # a damaged file may have a circle
            world[i] = own[above] @ world[i]
            above, steps = parents.get(above), steps + 1
    return world


def webxr_split(
    glb: str | os.PathLike | WebXrHand,
    count: int = 200,
    seed: int = SEED,
    *,
    backgrounds: str | os.PathLike | None = None,
) -> list[HandPicture]:
    """The test pictures, a function of the arguments; half of them are left hands.

    The poses are those of the prior of this hand, half of them grasps that training leaves out:
    anatomical angles about the axes of its own rest geometry, in which no parts overlap.

    Args:
      glb: the file, see SOURCE, or the hand.
      count: of pictures.
      seed: of the pictures; results on different seeds are not comparable.
      backgrounds: folder of photos; default: procedural backgrounds.

    Returns:
      Pictures with the true keypoints and vertices of `WebXrHand.posed`, metres in the axes of the
      camera.

    Raises:
      InputError: of `load_webxr_hand`, or no such backgrounds.
    """
    hand = glb if isinstance(glb, WebXrHand) else load_webxr_hand(glb)
    model, scenes = hand.model(), Backgrounds(None if backgrounds is None else str(backgrounds))
    prior, half = HandPrior(model), (count + 1) // 2
    fingers = {kind: prior.sample(np.random.default_rng(seed), half, kind) for kind in KINDS}
    pictures = []
    for i in range(count):
        kind = KINDS[i % 2]
        pose = np.concatenate([np.zeros((1, 3)), fingers[kind][i // 2]]).ravel()
        sample = draw_sample(model, pose, np.random.default_rng([seed, i]), scenes)
        camera = sample.camera
        vertices, joints = hand.posed(sample.pose)
        keypoints = joints[HAND21_FROM_WEBXR]
        picture = HandPicture(
            image=sample.image,
            kind=kind,
            right=True,
            keypoints=keypoints,
            vertices=vertices,
            points2d=camera.project(keypoints),
            camera=PhotoCamera(camera.focal, (float(camera.centre[0]), float(camera.centre[1]))),
        )
        pictures.append(picture if i % 4 < 2 else mirrored(picture))
    return pictures


def main() -> None:
    """Run the command line."""
    about = "Measure a model of hands on rendered hands of a mesh that is not trained on."
    parser = argparse.ArgumentParser(description=about)
    about = f"the hand; {SOURCE}"
    parser.add_argument("--glb", type=path_argument, required=True, help=about)
    about = "model folder; default: the model of the package"
    parser.add_argument("--checkpoint", type=path_argument, help=about)
    parser.add_argument("--count", type=int, default=200, help="number of pictures")
    about = "folder of photos; procedural backgrounds without"
    parser.add_argument("--backgrounds", type=path_argument, help=about)
    parser.add_argument("--out", type=path_argument, help="JSON file of the results")
    args = parser.parse_args()
    try:
        hand = load_webxr_hand(args.glb)
        recoverer = load_hands(args.checkpoint)
        pictures = webxr_split(hand, args.count, backgrounds=args.backgrounds)
        report = measure(recoverer, pictures, options=RecoverOptions()) | {"about": WEBXR}
        text = json.dumps(report, indent=2)
        print(text)
        if args.out:
            pathlib.Path(args.out).write_text(text)
    except InputError as error:
        parser.exit(1, f"{error}\n")


if __name__ == "__main__":
    main()
