"""Hands: the free hand that ships with the package, or the user's own MANO file.

A hand has MANO's form (Romero et al., "Embodied Hands", SIGGRAPH Asia 2017): 16 joints, the wrist
and three for each finger. It is posed by `smpl_jax.forward` with 16 rotations. The right hand has
its fingers along -x, its back up (+y) and its thumb forward (+z); metres.
"""

import dataclasses
import functools
import importlib.resources
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import SmplModel, SmplOutput
from smpl_jax.blocks import make_blocks
from smpl_jax.io import read_tables
from smpl_jax.keypoints import HAND21, JOINT_OF_HAND_KEYPOINT, MANO16, MANO_VERTEX_IDS

from genhmr_jax.geometry.keypoints import keypoint_points, match
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand

HAND_JOINTS = MANO16
"""The 16 joints in MANO's order: wrist, then index, middle, pinky, ring and thumb."""

TIPS = tuple(MANO_VERTEX_IDS)
"""The five finger tips, which are vertices: thumb, index, middle, ring, pinky."""

FINGERS = {
    name: tuple(HAND_JOINTS.index(f"{name}{part}") for part in (1, 2, 3))
    for name in ("thumb", "index", "middle", "ring", "pinky")
}
"""The three joints of each finger, from the palm outwards, in the order of TIPS."""

MANO_21 = (*HAND_JOINTS, *TIPS)
"""MANO's own order of 21 keypoints: its 16 joints, then the five finger tips."""

_PARTS = {"thumb": ("cmc", "mcp", "ip")} | dict.fromkeys(
    ("index", "middle", "ring", "pinky"), ("mcp", "pip", "dip")
)

_COMMON = {JOINT_OF_HAND_KEYPOINT[name]: name for name in HAND21 if name not in MANO_VERTEX_IDS}
"""MANO's name of a joint -> its name in HAND21."""

HAND21_FROM_MANO = match([_COMMON.get(name, name) for name in MANO_21], HAND21)
"""`points[..., HAND21_FROM_MANO, :]` takes keypoints from the order MANO_21 to HAND21."""

MANO_FROM_HAND21 = match(HAND21, [_COMMON.get(name, name) for name in MANO_21])
"""`points[..., MANO_FROM_HAND21, :]` takes keypoints from the order HAND21 to MANO_21."""

_HANDS = importlib.resources.files("genhmr_jax").joinpath("assets", "hand")
_SOURCE = "https://mano.is.tue.mpg.de"
_MIRROR = np.array([-1.0, 1.0, 1.0], np.float32)  # left <-> right: x changes sign


def available_hands() -> tuple[str, ...]:
    """Names of the hands that ship with the package."""
    files = (file.name for file in _HANDS.iterdir())
    return tuple(sorted(Path(name).stem for name in files if name.endswith(".npz")))


def load_hand(name_or_path: str | Path = "free", side: str = "right") -> SmplModel:
    """Load a hand by name or from a file (MANO_RIGHT .pkl or .npz); it is read once and cached.

    The free hand shares MANO's joints and pose parameters, not its betas or its vertices. Its named
    vertices are the five finger tips (TIPS). If the file does not name them, and the hand is not
    MANO's mesh of 778 vertices, they are found by geometry (`finger_tips`).

    Args:
      name_or_path: "free", or the path of a right hand.
      side: "right", or "left": the mirror image of the right hand (x -> -x), for which
        left(mirror_pose(pose)) is the mirror image of right(pose).

    Raises:
      InputError: unknown side, neither a shipped hand nor a file that holds one, or the file of a
        left hand. The message has the address at which MANO is published.
    """
    if side not in ("right", "left"):
        raise InputError(side, "no such side of a hand", "choose right or left")
    if str(name_or_path) in available_hands():
        with importlib.resources.as_file(_HANDS.joinpath(f"{name_or_path}.npz")) as path:
            return _load(path, path.stat().st_mtime_ns, side)
    path = Path(expand(name_or_path))
    if str(name_or_path) and path.is_dir():
        inside = sorted(str(file) for file in path.glob("*RIGHT*.pkl"))
        example = f", such as {inside[0]}" if inside else ""
        raise InputError(name_or_path, "is a folder", f"give the file in it{example}")
    if not path.is_file():
        choices = ", ".join(available_hands())
        remedy = f"choose {choices}, or give the path of MANO_RIGHT.pkl from {_SOURCE}"
        raise InputError(name_or_path, "no such hand", remedy)
    try:
        return _load(path.resolve(), path.stat().st_mtime_ns, side)
    except InputError:
        raise
    except ValueError as error:
        problem = str(error).removeprefix(f"{path.resolve()}: ")
        remedy = f"or use a shipped hand: {', '.join(available_hands())}"
        raise InputError(path, problem, remedy) from error


@functools.lru_cache(maxsize=8)
def _load(path: Path, modified: int, side: str) -> SmplModel:
    """Load a file. `modified` is part of the cache key: a file that was replaced is read again."""
    if side == "left":
        return mirror_hand(_load(path, modified, "right"))
    model = smpl_jax.load(path, joints=len(HAND_JOINTS))
    joints = np.asarray(model.joint_template)
    # MANO_LEFT.pkl is known for the wrong sign of its first shape direction; it is not needed.
    if joints[HAND_JOINTS.index("middle1"), 0] > joints[0, 0]:
        remedy = "give MANO_RIGHT.pkl: the left hand is its mirror image"
        raise InputError(path, "is a left hand (its fingers point along +x)", remedy)
    if any(name not in model.vertex_ids for name in TIPS):
        tips = tuple(zip(TIPS, finger_tips(model), strict=True))
        model = dataclasses.replace(model, named_vertices=tips)
    return model


def finger_tips(model: SmplModel) -> tuple[int, ...]:
    """Find the vertices of the five finger tips of a hand in its rest pose, in the order of TIPS.

    The last bone of a finger points from its last joint to the middle of the skin that this joint
    moves. The tip is the vertex furthest along it; distance from the bone's line counts against
    it, so that the tip lies at the middle of the finger and not at a corner of the nail.

    Raises:
      ValueError: no vertex moves with the last joint of a finger.
    """
    template, joints = np.asarray(model.template).T, np.asarray(model.joint_template)
    weights, tips = model.weights, []
    for finger in FINGERS.values():
        skin = np.flatnonzero(weights[finger[2]] > 0.6)
        if not len(skin):
            raise ValueError(f"no vertex moves with the joint {HAND_JOINTS[finger[2]]}")
        offsets = template[skin] - joints[finger[2]]
        along = offsets.mean(0) / np.linalg.norm(offsets.mean(0))
        reach = offsets @ along
        aside = np.linalg.norm(offsets - reach[:, None] * along, axis=-1)
        tips.append(int(skin[np.argmax(reach - 0.5 * aside)]))
    return tuple(tips)


def mirror_hand(model: SmplModel) -> SmplModel:
    """The mirror image of a hand (x -> -x), with faces that look outwards. Not inside `jit`.

    A pose in the mirror has the rotations M R M with M = diag(-1, 1, 1). So the entries of R - 1
    with exactly one index x change sign, and the pose blend shapes with them.
    """
    directions, mirror = model.directions, _MIRROR
    shapes = model.num_betas
    entries = np.tile(np.outer(mirror, mirror).reshape(9), model.num_joints - 1)
    features = np.concatenate([np.ones(shapes, np.float32), entries])
    directions = directions * mirror[:, None] * features[:, None, None]
    put = lambda array: jax.device_put(np.ascontiguousarray(array, np.float32))
    with jax.ensure_compile_time_eval():  # concrete arrays, even inside a jitted function
        return dataclasses.replace(
            model,
            template=put(np.asarray(model.template) * mirror[:, None]),
            blocks=make_blocks(directions, model.weights),
            joint_template=put(np.asarray(model.joint_template) * mirror),
            joint_shapedirs=put(np.asarray(model.joint_shapedirs) * mirror),
            faces=jax.device_put(np.ascontiguousarray(np.asarray(model.faces)[:, ::-1])),
        )


def mirror_pose(pose: Float[Array, "*batch J 3"]) -> Float[Array, "*batch J 3"]:
    """The axis-angle pose (radians) of the other hand, whose mesh is the mirror image (x -> -x)."""
    return pose * -_MIRROR


def mirror_points(points: Float[Array, "*batch 3"]) -> Float[Array, "*batch 3"]:
    """The mirror image (x -> -x) of points."""
    return points * _MIRROR


def mirror_pixels(points: Float[np.ndarray, "*b K C"], middle: float) -> np.ndarray:
    """Points in the mirror image of a photo, about the vertical line x = `middle` px.

    Args:
      points: x and y px, and a confidence if C is 3; a point of confidence 0 stays.
      middle: of the principal point, so that the camera stays the same.
    """
    mirrored = np.array(points)
    mirrored[..., 0] = 2 * middle - mirrored[..., 0]
    if points.shape[-1] == 3:
        mirrored = np.where(points[..., 2:] == 0, points, mirrored)
    return mirrored


def hand_keypoints(model: SmplModel, output: SmplOutput) -> Float[Array, "*batch 21 3"]:
    """The 21 keypoints of a posed hand in the order of HAND21, metres; differentiable.

    Args:
      model: the hand of the output; whole, or reduced by `hand_keypoint_model`.
      output: of smpl_jax.forward.
    """
    return keypoint_points(model, output, HAND21)


def hand_keypoint_model(model: SmplModel) -> SmplModel:
    """The hand reduced to its five finger tips, for `hand_keypoints`. Not inside `jit`."""
    return model.subset([model.vertex_ids[name] for name in TIPS])


@dataclass(frozen=True)
class HandPca:
    """MANO's principal components of the pose of one hand, without the wrist.

    Attributes:
      mean: axis-angle of the mean pose, radians, joint by joint.
      components: the components, one in each row, by falling variance.
    """

    mean: Float[np.ndarray, "45"]
    components: Float[np.ndarray, "45 45"]

    def pose(
        self, coefficients: Float[Array, "*batch n"], flat_hand_mean: bool = False
    ) -> Float[Array, "*batch 15 3"]:
        """Convert coefficients to axis-angle, radians, of the joints HAND_JOINTS[1:].

        Args:
          coefficients: of the first n components, n <= 45; MANO's demos use 6, smplx 6 to 45.
          flat_hand_mean: as in PyPI's smplx. True: coefficients of zero are the flat hand of the
            rest pose. False: they are the mean pose.

        Raises:
          ValueError: more coefficients than components.
        """
        count = coefficients.shape[-1]
        if count > len(self.components):
            raise ValueError(f"{count} coefficients, but {len(self.components)} components")
        components = self.components[:count]
        pose = jnp.matmul(coefficients, components, precision=jax.lax.Precision.HIGHEST)
        pose = pose if flat_hand_mean else pose + self.mean
        return pose.reshape(*pose.shape[:-1], len(HAND_JOINTS) - 1, 3)


def load_hand_pca(path: str | Path) -> HandPca:
    """Read MANO's `hands_mean` and `hands_components` from MANO_RIGHT.pkl, MANO_LEFT.pkl or .npz.

    Coefficients of a left hand need the file of the left hand.

    Raises:
      InputError: no such file, or it lacks these tables.
    """
    path = Path(expand(path))
    keys = ("hands_mean", "hands_components")
    try:
        tables = read_tables(path, keys, joints=len(HAND_JOINTS))
    except (FileNotFoundError, ValueError) as error:
        problem = str(error).removeprefix(f"{path}: ")
        raise InputError(path, problem, "give MANO_RIGHT.pkl") from error
    shapes = {"hands_mean": (45,), "hands_components": (45, 45)}
    for key, shape in shapes.items():
        if key not in tables or tables[key].shape != shape or tables[key].dtype.kind not in "fiu":
            problem = f"holds no table {key} of shape {shape}"
            raise InputError(path, problem, f"give MANO_RIGHT.pkl from {_SOURCE}")
    return HandPca(*(np.asarray(tables[key], np.float32) for key in keys))
