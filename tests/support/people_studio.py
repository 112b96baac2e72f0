"""People whose labels are known exactly, and pictures of them: what the fixtures of
people_fixtures.py are made of.

Bodies are posed by plain float64 NumPy, not by the code under test; joints are painted into the
pictures as discs, so that a test can see that images and labels belong together.
"""

import dataclasses
import functools
import io
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel
from smpl_jax.keypoints import BODY44, OPENPOSE25, SMPL24, SMPL45, VERTEX_OF_KEYPOINT

from genhmr_jax.geometry.bodies import load_body

_STAND_INS = {
    "neck_lsp": "neck", "head_top_lsp": "head", "pelvis_mpii": "pelvis", "thorax_mpii": "neck",
    "spine_h36m": "spine1",
    "jaw_h36m": "head", "head_h36m": "head",
}  # fmt: skip
"""Joints that only a regressor on SMPL's mesh knows: the nearest joint of the skeleton takes their
place."""

DISC_COLOURS = {"pelvis": (255, 0, 0), "left_ankle": (0, 255, 0), "right_wrist": (0, 0, 255)}


@dataclasses.dataclass
class Person:
    """The truth about one labelled person: camera coordinates, metres; pixels of the image as
    readers give it."""

    split: str
    image_name: str
    sequence: str
    frame: int
    person: int
    gender: str
    size: tuple[int, int]
    intrinsics: np.ndarray
    pose: np.ndarray  # (72,), root in camera coordinates
    betas: np.ndarray
    translation: np.ndarray
    joints: np.ndarray  # (24, 3)
    joints45: np.ndarray  # (45, 3)
    points: np.ndarray  # (44, 3) BODY44

    def pixels(self, points: np.ndarray) -> np.ndarray:
        projected = points @ self.intrinsics.T
        return projected[:, :2] / projected[:, 2:]

    @property
    def keypoints2d(self) -> np.ndarray:
        """(44, 3) px and confidence 1."""
        return np.concatenate([self.pixels(self.points), np.ones((44, 1))], -1)

    @property
    def keypoints3d(self) -> np.ndarray:
        """(44, 4) relative to the pelvis, confidence 1: as the releases have them."""
        return np.concatenate(
            [self.points - self.points[BODY44.index("pelvis_mpii")], np.ones((44, 1))], -1
        )

    @property
    def box(self) -> np.ndarray:
        """Tight around the keypoints, xyxy px."""
        pixels = self.pixels(self.points)
        return np.concatenate([pixels.min(0), pixels.max(0)])

    @property
    def centre(self) -> np.ndarray:
        return (self.box[:2] + self.box[2:]) / 2

    def side(self, factor: float = 1.2) -> float:
        return factor * float((self.box[2:] - self.box[:2]).max())


@functools.cache
def _reduced(name: str) -> dict:
    return _arrays(load_body(name))


def _arrays(model: SmplModel) -> dict:
    """The body as float64 NumPy, with only the 21 vertices that are keypoints."""
    vertices = np.array([model.vertex_ids[name] for name in SMPL45[24:]])
    return {
        "template": np.asarray(model.template).astype(np.float64)[:, vertices],
        "directions": np.asarray(model.directions)[:, :, vertices].astype(np.float64),
        "weights": np.asarray(model.weights, np.float64)[:, vertices],
        "joints": np.asarray(model.joint_template, np.float64),
        "joint_shapes": np.asarray(model.joint_shapedirs, np.float64),
        "parents": model.parents,
    }


def pose_body(
    body: dict, pose: np.ndarray, betas: np.ndarray, translation: np.ndarray
) -> np.ndarray:
    """SMPL45 points (45, 3): 24 joints, then 21 vertices, as in the SMPL paper, in float64."""
    local = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    rest = body["joints"] + np.einsum("s,sjc->jc", betas, body["joint_shapes"])
    features = np.concatenate([betas, (local[1:] - np.eye(3)).reshape(-1)])
    shaped = body["template"] + np.einsum("k,kcv->cv", features, body["directions"])
    turns, joints = [local[0]], [rest[0]]
    for joint in range(1, 24):
        parent = body["parents"][joint]
        turns.append(turns[parent] @ local[joint])
        joints.append(joints[parent] + turns[parent] @ (rest[joint] - rest[parent]))
    vertices = sum(
        body["weights"][joint][:, None]
        * ((shaped.T - rest[joint]) @ turns[joint].T + joints[joint])
        for joint in range(24)
    )
    return np.concatenate([np.array(joints), vertices]) + translation


def body44(points45: np.ndarray) -> np.ndarray:
    """BODY44 points of SMPL45 points: OpenPose's 25 exactly, the other 19 by stand-ins."""
    index = {name: i for i, name in enumerate(SMPL24)} | {"mid_hip": 0}
    index |= {name: SMPL45.index(vertex) for name, vertex in VERTEX_OF_KEYPOINT.items()}
    names = list(OPENPOSE25) + [_STAND_INS.get(name, name) for name in BODY44[25:]]
    return points45[[index[name] for name in names]]


class Studio:
    """Makes people, images and files from one random stream."""

    def __init__(self, folder: Path, body: SmplModel | None, seed: int) -> None:
        self.folder, self.rng = Path(folder), np.random.default_rng(seed)
        self._body = None if body is None else _arrays(body)

    def body(self, gender: str) -> dict:
        """The given body, or the free body of this gender."""
        return self._body or _reduced(gender)

    def intrinsics(self, width: int, height: int) -> np.ndarray:
        focal = 1.1 * max(width, height)
        return np.array([[focal, 0, width / 2 + 3.0], [0, focal, height / 2 - 2.0], [0, 0, 1]])

    def person(
        self,
        size: tuple[int, int],
        *,
        intrinsics: np.ndarray | None = None,
        gender: str = "neutral",
        shift: float = 0.0,
        **names,
    ):
        """A person who stands wholly inside the image, `shift` x its width beside the middle."""
        intrinsics = self.intrinsics(*size) if intrinsics is None else intrinsics
        pose = self.rng.normal(0, 0.15, (24, 3))
        pose[16, 2], pose[17, 2] = -1.1, 1.1  # arms down
        yaw = Rotation.from_euler("y", self.rng.uniform(-1.2, 1.2)) * Rotation.from_rotvec(
            self.rng.normal(0, 0.1, 3)
        )
        pose[0] = (Rotation.from_euler("x", np.pi) * yaw).as_rotvec()
        betas = self.rng.normal(0, 0.7, 10)
        depth = max(
            1.8 * intrinsics[1, 1] / (0.6 * size[1]), 1.2 * intrinsics[0, 0] / (0.6 * size[0])
        ) * self.rng.uniform(1.0, 1.2)
        translation = np.array([shift * size[0] * depth / intrinsics[0, 0], 0.1, depth])
        points = pose_body(self.body(gender), pose.reshape(72), betas, translation)
        fields = dict(split="train", image_name="", sequence="", frame=0, person=0) | names
        return Person(
            **fields, gender=gender, size=size, intrinsics=intrinsics, pose=pose.reshape(72),
            betas=betas, translation=translation,
            joints=points[:24], joints45=points, points=body44(points),
        )  # fmt: skip

    def reshape(self, person: Person, betas: np.ndarray) -> None:
        """The same pose and place with another shape."""
        points = pose_body(self.body(person.gender), person.pose, betas, person.translation)
        person.betas, person.joints, person.joints45, person.points = (
            betas,
            points[:24],
            points,
            body44(points),
        )

    def world_camera(self) -> tuple[np.ndarray, np.ndarray]:
        """World to camera: the rotation and shift of a y-up world before a camera that looks
        forward."""
        turn = Rotation.from_euler("x", np.pi) * Rotation.from_rotvec(self.rng.normal(0, 0.4, 3))
        return turn.as_matrix(), self.rng.normal(0, 2.0, 3)

    def to_world(
        self, person: Person, turn: np.ndarray, shift: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pose (72,), translation (3,) and joints (24, 3) in the world of a person given in the
        camera."""
        pose = person.pose.copy()
        pose[:3] = (Rotation.from_matrix(turn.T) * Rotation.from_rotvec(pose[:3])).as_rotvec()
        joints = (person.joints - shift) @ turn
        still = pose_body(self.body(person.gender), pose, person.betas, np.zeros(3))
        return pose, joints[0] - still[0], joints

    def picture(self, people: list[Person], suffix: str = ".jpg", turned: bool = False) -> bytes:
        """Soft noise with the people's joints as discs; `turned`: stored a quarter turn
        counter-clockwise."""
        width, height = people[0].size
        noise = Image.fromarray(self.rng.integers(60, 190, (9, 16, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BILINEAR
        )
        draw, radius = ImageDraw.Draw(noise), max(width, height) / 150
        for person in people:
            pixels = person.pixels(person.joints)
            for name in (*SMPL24, *DISC_COLOURS):  # the coloured ones last
                x, y = pixels[SMPL24.index(name)]
                draw.ellipse(
                    (x - radius, y - radius, x + radius, y + radius),
                    fill=DISC_COLOURS.get(name, (255, 255, 255)),
                )
        if turned:
            noise = noise.transpose(Image.Transpose.ROTATE_90)
        stream = io.BytesIO()
        noise.save(
            stream,
            "JPEG" if suffix == ".jpg" else "PNG",
            **({"quality": 90, "subsampling": 0} if suffix == ".jpg" else {}),
        )
        return stream.getvalue()

    def put(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def put_npz(self, name: str, **arrays: np.ndarray) -> None:
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        self.put(name, stream.getvalue())

    def put_tar(self, name: str, members: list[tuple[str, bytes | None]]) -> None:
        """Members without data are folders."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w") as tar:
            for member, data in members:
                info = tarfile.TarInfo(member)
                info.type, info.size = (
                    (tarfile.DIRTYPE, 0) if data is None else (tarfile.REGTYPE, len(data))
                )
                tar.addfile(info, io.BytesIO(data or b""))
        self.put(name, stream.getvalue())


def object_array(value: object) -> np.ndarray:
    """A 0-d object array, as the releases wrap dictionaries."""
    array = np.empty((), object)
    array[()] = value
    return array
