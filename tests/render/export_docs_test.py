"""docs/formats.md lists every array, and its Python blocks run and are right."""

import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPL24_PARENTS

from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.recover import clip as clips
from genhmr_jax.recover import people as photos
from genhmr_jax.render.export import CLIP_FORMATS
from support.export_motions import FORWARD, clip, first_frame, motion, posed
from support.paths import ROOT

TEXT = (ROOT / "docs" / "formats.md").read_text()


def section(title: str) -> str:
    """The text between a heading and the next."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with results/photo.npz of one person and results/walk.npz of two."""
    body = load_body("lite")
    person = first_frame(motion(1))
    joints, vertices = posed(person, body)
    out = tmp_path_factory.mktemp("docs")
    (out / "results").mkdir()
    photos.People(
        boxes=[[0, 0, 9, 9]],
        keypoints2d=np.zeros((1, 23, 3)),
        keypoint_names=[f"{i}" for i in range(23)],
        global_orient=person.poses[:, 0],
        body_pose=person.poses[:, 1:].reshape(1, 69),
        betas=person.betas[None],
        weak_camera=[[1, 0, 0]],
        translation=person.translation,
        focal_length=800.0,
        image_size=(640, 480),
        vertices=vertices,
        joints=joints,
        joints2d=800 * joints[..., :2] / joints[..., 2:] + [320, 240],
        joint_confidence=person.confidence,
        faces=np.asarray(body.faces),
        joint_names=body.joint_names,
    ).save(out / "results" / "photo.npz")
    clip([motion(1), motion(2)], body).save(out / "results" / "walk.npz")
    return out


def run(title: str, folder, monkeypatch) -> list[dict]:
    """The variables that each Python block of a section leaves."""
    monkeypatch.chdir(folder)
    results = []
    for block in re.findall(r"^```python\n(.*?)^```", section(title), re.MULTILINE | re.DOTALL):
        exec(compile(block, title, "exec"), names := {})
        results.append(names)
    assert results
    return results


@pytest.mark.parametrize("title, shapes", [("a photo", photos.SHAPES), ("a clip", clips.SHAPES)])
def test_every_array_is_listed_with_its_shape(title, shapes):
    listed = dict(re.findall(r"^\| `(\w+)` \| (\(.*?\)) \|", section(f"The npz of {title}"), re.M))
    written = {
        name: f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        for name, shape in shapes.items()
    }
    assert listed == written


def test_joints_and_formats_are_listed():
    rows = re.findall(r"^\| (\d+) \| (\w+) \| ?(\d*) \|", section("Joints"), re.M)
    expected = [
        (str(i), name, "" if parent < 0 else str(parent))
        for i, (name, parent) in enumerate(zip(SMPL24, SMPL24_PARENTS, strict=True))
    ]
    assert rows == expected
    for name, (suffix, per_person, _) in CLIP_FORMATS.items():
        assert f"`{name}`" in TEXT
        assert f"`STEM{'_1' if per_person else ''}{suffix}`" in TEXT


def test_blocks_of_the_npz_files_run(folder, monkeypatch, capsys):
    run("The npz of a photo", folder, monkeypatch)
    run("The npz of a clip", folder, monkeypatch)
    run("From Python", folder, monkeypatch)
    assert capsys.readouterr().out.count(" m ") == 2
    assert (folder / "results" / "photo_rigged.glb").stat().st_size > 100_000


def test_conversions(folder, monkeypatch):
    body = load_body("lite")
    smplx, blender, unity = run("Conversions", folder, monkeypatch)
    people = blender["people"]
    # 1. SMPL-X: the pelvis is where it was.
    np.testing.assert_array_equal(smplx["smplx"]["transl"], people["joints"][:, 0])
    assert smplx["smplx"]["body_pose"].shape == (1, 63)
    # 2. Blender: the converted parameters pose the converted vertices.
    pose = np.concatenate([blender["global_orient"], people["body_pose"]], 1).astype(np.float32)
    posed_again = FORWARD(body, people["betas"], pose, blender["translation"])
    np.testing.assert_allclose(posed_again.vertices, blender["vertices"], atol=1e-4)
    # 3. Unity: the mirrored skeleton with the converted rotations has the mirrored joints.
    mirror = np.diag([-1.0, 1, 1])
    rest = FORWARD(body, people["betas"], np.zeros((1, 72), np.float32))
    rest = np.asarray(rest.joints)[0] @ mirror
    turns = Rotation.from_quat(unity["quaternions"][0]).as_matrix()
    world, places = [turns[0]], [np.zeros(3)]
    for joint, parent in enumerate(SMPL24_PARENTS[1:], 1):
        places.append(places[parent] + world[parent] @ (rest[joint] - rest[parent]))
        world.append(world[parent] @ turns[joint])
    joints = people["joints"][0] * [1, -1, -1] @ mirror
    np.testing.assert_allclose(places, joints - joints[0], atol=1e-5)
    # Mirrored faces in reverse order still look outwards.
    a, b, c = (unity["unity"][0][unity["triangles"][:, k]] for k in range(3))
    assert np.einsum("fi,fi->", np.cross(b - a, c - a), a - unity["unity"][0].mean(0)) > 0
