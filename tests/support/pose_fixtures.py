"""Tiny copies of the pose datasets in their official layouts, with the key types of the releases.
`write(name, manual_dir)`."""

import pickle
from pathlib import Path

import numpy as np

from genhmr_jax.data.sources import Record, Report, find

# name, parent, direction, length, axis, degrees of freedom: the bones of CMU's .asf files (lengths
# and directions of nobody).
BONES = [
    ("lhipjoint", "root", (0.62, -0.71, 0.33), 2.4, (0, 0, 0), ""),
    ("lfemur", "lhipjoint", (0.34202, -0.939693, 0), 7.2, (0, 0, 20), "rx ry rz"),
    ("ltibia", "lfemur", (0.34202, -0.939693, 0), 7.5, (0, 0, 20), "rx"),
    ("lfoot", "ltibia", (0.085, -0.235, 0.968), 2.2, (-90, 0, 20), "rx rz"),
    ("ltoes", "lfoot", (0, 0, 1), 1.1, (-90, 0, 20), "rx"),
    ("lowerback", "root", (0.01, 0.998, -0.06), 2.0, (0, 0, 0), "rx ry rz"),
    ("upperback", "lowerback", (0.0, 1.0, -0.02), 2.1, (0, 0, 0), "rx ry rz"),
    ("thorax", "upperback", (0.0, 1.0, 0.01), 2.1, (0, 0, 0), "rx ry rz"),
    ("lowerneck", "thorax", (0.0, 0.995, 0.1), 1.6, (0, 0, 0), "rx ry rz"),
    ("upperneck", "lowerneck", (0.0, 0.998, -0.05), 1.6, (0, 0, 0), "rx ry rz"),
    ("head", "upperneck", (0.0, 0.998, -0.06), 1.6, (0, 0, 0), "rx ry rz"),
    ("lclavicle", "thorax", (0.935, 0.352, -0.03), 3.7, (0, 0, 0), "ry rz"),
    ("lhumerus", "lclavicle", (1, 0, 0), 5.3, (180, 30, 90), "rx ry rz"),
    ("lradius", "lhumerus", (1, 0, 0), 3.3, (180, 30, 90), "rx"),
    ("lwrist", "lradius", (1, 0, 0), 1.7, (180, 30, 90), "ry"),
    ("lhand", "lwrist", (1, 0, 0), 0.7, (180, 30, 90), "rx rz"),
    ("lfingers", "lhand", (1, 0, 0), 0.6, (180, 30, 90), "rx"),
    ("lthumb", "lwrist", (0.707, 0, 0.707), 0.8, (-90, 45, 0), "rx rz"),
]


def _right(bone: tuple) -> tuple:
    """The mirror image of a bone of the left side; the angles of a mirrored frame are (x, -y,
    -z)."""
    name, parent, (x, y, z), length, (a, b, c), freedom = bone
    return (
        "r" + name[1:],
        parent if parent in ("root", "thorax") else "r" + parent[1:],
        (-x, y, z),
        length,
        (a, -b, -c),
        freedom,
    )


LEFT = {
    "lhipjoint",
    "lfemur",
    "ltibia",
    "lfoot",
    "ltoes",
    "lclavicle",
    "lhumerus",
    "lradius",
    "lwrist",
    "lhand",
    "lfingers",
    "lthumb",
}
BONES += [_right(bone) for bone in BONES if bone[0] in LEFT]

# Joints of the MotionBuilder-friendly BVH of CMU's database: name, parent, offset.
BVH_JOINTS = [
    ("Hips", None, (0, 0, 0)),
    ("LHipJoint", "Hips", (0, 0, 0)),
    ("LeftUpLeg", "LHipJoint", (1.66, -1.80, 0.62)),
    ("LeftLeg", "LeftUpLeg", (2.44, -6.70, 0)),
    ("LeftFoot", "LeftLeg", (2.56, -7.04, 0)),
    ("LeftToeBase", "LeftFoot", (0.20, -0.54, 2.15)),
    ("LowerBack", "Hips", (0, 0, 0)),
    ("Spine", "LowerBack", (0.02, 2.05, -0.14)),
    ("Spine1", "Spine", (0.01, 2.06, -0.06)),
    ("Neck", "Spine1", (0, 0, 0)),
    ("Neck1", "Neck", (0.007, 1.567, 0.15)),
    ("Head", "Neck1", (0.034, 1.56, -0.1)),
    ("LeftShoulder", "Spine1", (0, 0, 0)),
    ("LeftArm", "LeftShoulder", (3.54, 0.90, -0.17)),
    ("LeftForeArm", "LeftArm", (4.87, 0, 0)),
    ("LeftHand", "LeftForeArm", (3.36, 0, 0)),
    ("LeftFingerBase", "LeftHand", (0, 0, 0)),
    ("LeftHandIndex1", "LeftFingerBase", (0.7, 0, 0)),
    ("LThumb", "LeftHand", (0, 0, 0)),
]  # fmt: skip
BVH_JOINTS += [
    (n.replace("Left", "Right").replace("LHip", "RHip").replace("LTh", "RTh"),
     p if p in ("Hips", "Spine1") else p.replace("Left", "Right").replace("LHip", "RHip"),
     (-x, y, z))
    for n, p, (x, y, z) in BVH_JOINTS if n.startswith(("Left", "LHip", "LTh"))
]  # fmt: skip


def asf_text() -> str:
    """A skeleton as CMU's .asf files are written."""
    parts = [
        "# AST/ASF file generated using VICON BodyLanguage", ":version 1.10", ":name VICON",
        ":units", "  mass 1.0", "  length 0.45",
        "  angle deg", ":documentation",
        "   .ast/.asf automatically generated from VICON data using", "   VICON BodyBuilder",
        ":root",
        "   order TX TY TZ RX RY RZ", "   axis XYZ", "   position 0 0 0  ",
        "   orientation 0 0 0 ", ":bonedata",
    ]  # fmt: skip
    for number, (name, _, direction, length, axis, freedom) in enumerate(BONES, 1):
        parts += [
            "  begin",
            f"     id {number} ",
            f"     name {name}",
            "     direction {} {} {}  ".format(*direction),
        ]
        parts += [f"     length {length} ", "     axis {} {} {}  XYZ".format(*axis)]
        if freedom:
            limits = ["(-180.0 180.0)"] * len(freedom.split())
            parts += [
                f"    dof {freedom}",
                f"    limits {limits[0]}",
                *(f"           {limit}" for limit in limits[1:]),
            ]
        parts.append("  end")
    children: dict[str, list[str]] = {}
    for name, parent, *_ in BONES:
        children.setdefault(parent, []).append(name)
    tree = [f"    {parent} {' '.join(names)}" for parent, names in children.items()]
    return "\n".join([*parts, ":hierarchy", "  begin", *tree, "  end"]) + "\n"


def amc_values(
    rng: np.random.Generator, frames: int, spread: float = 30.0
) -> dict[str, np.ndarray]:
    """Random numbers for each bone that has any, degrees: {"root": (N, 6), bone: (N, its
    freedom)}."""
    values = {
        "root": np.concatenate(
            [rng.normal(0, 10, (frames, 3)), rng.uniform(-170, 170, (frames, 3))], 1
        )
    }
    return values | {
        name: rng.normal(0, spread, (frames, len(dof.split()))) for name, *_, dof in BONES if dof
    }


def amc_text(values: dict[str, np.ndarray]) -> str:
    """A motion as CMU's .amc files are written."""
    lines = [
        "#!OML:ASF F:\\VICON\\USERDATA\\INSTALL\\rory3\\rory3.ASF",
        ":FULLY-SPECIFIED",
        ":DEGREES",
    ]
    for frame in range(len(values["root"])):
        lines.append(str(frame + 1))
        lines += [
            " ".join([name, *(f"{number:.6f}" for number in rows[frame])])
            for name, rows in values.items()
        ]
    return "\n".join(lines) + "\n"


def bvh_text(values: np.ndarray, order: str = "Zrotation Yrotation Xrotation") -> str:
    """A .bvh of BVH_JOINTS: values (N, 6 + 3 (J - 1)), the joints as the file has them: depth first
    (see bvh_order)."""
    children: dict[str | None, list[tuple]] = {}
    for joint in BVH_JOINTS:
        children.setdefault(joint[1], []).append(joint)

    def block(joint: tuple, depth: int) -> list[str]:
        name, parent, offset = joint
        pad, inner = "  " * depth, "  " * (depth + 1)
        channels = f"3 {order}" if parent else f"6 Xposition Yposition Zposition {order}"
        place = "{:.5f} {:.5f} {:.5f}"
        lines = [f"{pad}{'JOINT' if parent else 'ROOT'} {name}", pad + "{"]
        lines += [f"{inner}OFFSET {place.format(*offset)}", f"{inner}CHANNELS {channels}"]
        for child in children.get(name, []):
            lines += block(child, depth + 1)
        if name not in children:
            lines += [
                f"{inner}End Site",
                inner + "{",
                f"{inner}  OFFSET {place.format(*np.multiply(offset, 0.5))}",
                inner + "}",
            ]
        return [*lines, pad + "}"]

    rows = [" ".join(f"{number:.6f}" for number in row) for row in values]
    return (
        "\n".join(
            [
                "HIERARCHY",
                *block(BVH_JOINTS[0], 0),
                "MOTION",
                f"Frames: {len(rows)}",
                "Frame Time: .0083333",
                *rows,
            ]
        )
        + "\n"
    )


def bvh_order() -> list[str]:
    """The joints in the order of the file."""
    children: dict[str | None, list[str]] = {}
    for name, parent, _ in BVH_JOINTS:
        children.setdefault(parent, []).append(name)

    def walk(name: str) -> list[str]:
        return [name] + [inner for child in children.get(name, []) for inner in walk(child)]

    return walk("Hips")


def bvh_values(rng: np.random.Generator, frames: int, spread: float = 30.0) -> np.ndarray:
    """Random channels; the hands turn about the forearm alone, as in CMU's conversions. The first
    frame is the rest pose, as there."""
    values = rng.normal(0, spread, (frames, 3 + 3 * len(BVH_JOINTS)))
    for joint, name in enumerate(bvh_order()):
        if name in ("LeftHand", "RightHand"):
            values[:, 3 + 3 * joint : 5 + 3 * joint] = 0  # Z and Y
    values[0] = 0
    return values


def _amass(folder: Path, rng: np.random.Generator) -> None:
    clips = {
        "CMU/01/01_01_poses.npz": (100, np.array("male")),
        "CMU/02/02_01_poses.npz": (41, np.array("female", dtype=object)),
        "BioMotionLab_NTroje/rub001/0000_treadmill_norm_poses.npz": (30, np.array(b"female")),
        "GRAB/s1/cup_drink_poses.npz": (20, np.array("neutral")),
        "HumanEva/S1/Box_1_poses.npz": (50, np.array("male")),
        "SSM_synced/20160330_03333/chicken_wings_poses.npz": (10, np.array("b'male'")),
    }
    for name, (frames, gender) in clips.items():
        file = folder / "amass" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            "trans": rng.normal(0, 1, (frames, 3)),
            "mocap_framerate": np.array(120.0),
            "betas": rng.normal(0, 1, 16),
        }
        arrays |= {
            "dmpls": rng.normal(0, 1, (frames, 8)),
            "poses": rng.normal(0, 0.2, (frames, 156)),
            "gender": gender,
        }
        np.savez(file, **arrays)
        np.savez(file.parent / "shape.npz", betas=arrays["betas"], gender=gender)


def _moyo(folder: Path, rng: np.random.Generator) -> None:
    for split, name, width in (
        ("train", "220923_yogi_body_hands_03596_Boat_Pose_or_Paripurna_Navasana_-a", 69),
        ("val", "220926_yogi", 63),
    ):
        file = folder / "moyo" / "mosh_smpl" / split / f"{name}.pkl"
        file.parent.mkdir(parents=True)
        clip = {
            "global_orient": rng.normal(0, 1, (60, 3)),
            "body_pose": rng.normal(0, 0.3, (60, width)),
        }
        clip |= {
            "transl": rng.normal(0, 1, (60, 3)),
            "betas": np.tile(rng.normal(0, 1, 10), (60, 1)).astype(np.float32),
        }
        file.write_bytes(pickle.dumps(clip, protocol=4))


def _tokenhmr(folder: Path, rng: np.random.Generator) -> None:
    for split, name, count in (
        ("train", "CMU", 12),
        ("train", "MOYO", 8),
        ("val", "HumanEva", 6),
        ("test", "SSM", 3),
    ):
        file = folder / "tokenization_data" / "smplh" / split / f"{split}_{name}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        clip = f"{name}/01/01_01_poses.npz" if name != "MOYO" else "yogi.pkl"
        arrays = {
            "pose_body": rng.normal(0, 0.3, (count, 63)),
            "betas": rng.normal(0, 1, (count, 10)),
        }
        np.savez(file, **arrays, gender=np.array(["male"] * count), name=np.array([clip] * count))


def _cmu_asf(folder: Path, rng: np.random.Generator) -> None:
    for subject in ("01", "09"):
        place = folder / "cmu_asf" / "all_asfamc" / "subjects" / subject
        place.mkdir(parents=True)
        (place / f"{subject}.asf").write_text(asf_text())
        for trial in (1, 2):
            (place / f"{subject}_{trial:02d}.amc").write_text(amc_text(amc_values(rng, 40)))


def _cmu_bvh(folder: Path, rng: np.random.Generator) -> None:
    for subject in ("01", "09"):
        place = folder / "cmu_bvh" / subject
        place.mkdir(parents=True)
        (place / f"{subject}_01.bvh").write_text(bvh_text(bvh_values(rng, 40)))


def _aist(folder: Path, rng: np.random.Generator) -> None:
    root = folder / "aist_plusplus"
    (root / "motions").mkdir(parents=True)
    (root / "splits").mkdir()
    names = {
        "train": ["gBR_sBM_cAll_d04_mBR0_ch01", "gBR_sBM_cAll_d04_mBR0_ch02"],
        "val": ["gHO_sBM_cAll_d20_mHO2_ch03"],
        "test": ["gJB_sFM"],
    }
    for split, clips in names.items():
        (root / "splits" / f"pose_{split}.txt").write_text("\n".join(clips) + "\n")
        for clip in clips:
            motion = {
                "smpl_loss": 0.1,
                "smpl_poses": rng.normal(0, 0.3, (45, 72)),
                "smpl_scaling": np.array([93.0]),
            }
            motion |= {"smpl_trans": rng.normal(0, 50, (45, 3))}
            (root / "motions" / f"{clip}.pkl").write_bytes(pickle.dumps(motion, protocol=3))
    (root / "ignore_list.txt").write_text(names["train"][1] + "\n")


_WRITERS = {
    "amass": _amass,
    "moyo": _moyo,
    "tokenhmr_poses": _tokenhmr,
    "cmu_asf": _cmu_asf,
    "cmu_bvh": _cmu_bvh,
    "aist": _aist,
}
NAMES = tuple(_WRITERS)


def write(name: str, manual_dir: Path, seed: int = 0) -> None:
    """Puts a tiny official release of a pose dataset into a manual directory."""
    _WRITERS[name](Path(manual_dir), np.random.default_rng(seed))


def records(
    name: str, manual_dir: Path, split: str, skip_bad: bool = False
) -> tuple[list[Record], Report]:
    """What a source reads from a manual directory, and its report."""
    report = find(name).report(skip_bad)
    return list(find(name).records(manual_dir, split, report)), report
