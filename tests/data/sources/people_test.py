"""The sources of people read their official layouts into records whose labels fit the images and
each other."""

import io
import tarfile
import warnings

import numpy as np
import pytest
import smpl_jax
from PIL import Image
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import BODY44, SMPL24

from genhmr_jax.data.sources import MissingError, find
from genhmr_jax.data.sources.photos import rest_pelvis, root_in_camera, translation_in_camera
from genhmr_jax.data.sources.records import PERSON_FIELDS
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.crop import crop_image
from genhmr_jax.io.errors import InputError
from support import people_fixtures
from support.people_studio import DISC_COLOURS, pose_body

NAMES = (
    "hmr2_coco",
    "own_tars",
    "own_photos",
    "hmr2_eval",
    "bedlam",
    "threedpw",
    "emdb",
    "human36m",
    "mpi_inf_3dhp",
)


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    """A manual directory with every release, and the truth by source."""
    folder = tmp_path_factory.mktemp("manual")
    return folder, {name: people_fixtures.write(name, folder) for name in people_fixtures.WRITERS}


def read(folder, name, split=None, skip_bad=False):
    source = find(name)
    report = source.report(skip_bad)
    splits = (split,) if split else source.splits
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the histogram of improbable poses is not part of the fixtures
        return [
            record for split in splits for record in source.records(folder, split, report)
        ], report


def read_all(manual, name):
    """(record, truth) of every split that the fixture has."""
    folder, truth = manual
    splits = list(dict.fromkeys(person.split for person in truth[name]))
    records = [record for split in splits for record in read(folder, name, split)[0]]
    assert len(records) == len(truth[name])
    return list(zip(records, truth[name], strict=True))


@pytest.mark.parametrize(
    "name",
    [
        *NAMES,
        "hmr2_h36m",
        "hmr2_mpii",
        "hmr2_coco_vitpose",
        "hmr2_mpi_inf",
        "hmr2_ava",
        "hmr2_aic",
        "hmr2_insta",
    ],
)
def test_records_are_whole_and_in_the_order_of_the_release(manual, name):
    for record, person in read_all(manual, name):
        assert set(record) == set(PERSON_FIELDS)
        assert (record["image_name"], record["sequence"]) == (person.image_name, person.sequence)
        assert (record["frame"], record["person"]) == (person.frame, person.person)
        assert tuple(record["image_size"]) == person.size


@pytest.mark.parametrize("name", NAMES)
def test_labels_fit_the_image(manual, name):
    """At the pixel of a joint lies the disc that was painted there: also in images that are stored
    on their side."""
    for record, person in read_all(manual, name):
        image = np.asarray(Image.open(io.BytesIO(record["image"])).convert("RGB")).astype(int)
        assert image.shape[:2] == person.size[::-1]
        pixels = person.pixels(person.joints)
        for joint, colour in DISC_COLOURS.items():
            x, y = np.floor(pixels[SMPL24.index(joint)]).astype(int)
            assert np.abs(image[y, x] - colour).max() < 60, (person.image_name, joint)


@pytest.mark.parametrize("name", NAMES)
def test_keypoints_are_the_projected_joints(manual, name):
    for record, person in read_all(manual, name):
        known = record["keypoints2d"][:, 2] > 0
        assert known.sum() >= (0 if name == "human36m" else 12)
        np.testing.assert_allclose(
            record["keypoints2d"][known, :2], person.keypoints2d[known, :2], atol=0.05
        )
        known = record["keypoints3d"][:, 3] > 0
        np.testing.assert_allclose(
            record["keypoints3d"][known, :3], person.keypoints3d[known, :3], atol=1e-4
        )
        assert known.sum() >= (17 if name in ("human36m", "mpi_inf_3dhp") else 0)


@pytest.mark.parametrize(
    "name", ["hmr2_coco", "own_tars", "hmr2_eval", "bedlam", "threedpw", "emdb"]
)
def test_posed_bodies_project_onto_the_joints(manual, name):
    """The pose, shape and translation of the record, through our own SMPL and camera, meet the true
    joints within half a pixel."""
    with_body = [
        (record, person) for record, person in read_all(manual, name) if record["has_pose"]
    ]
    assert with_body
    for record, person in with_body:
        pose = np.concatenate([record["global_orient"], record["body_pose"]])
        assert record["has_betas"]
        body = load_body(person.gender)
        rotmats = smpl_jax.rotations.axis_angle_to_matrix(pose.reshape(24, 3))
        joints = np.asarray(smpl_jax.posed_joints(body, record["betas"], rotmats))
        root_relative = person.joints - person.joints[0]
        np.testing.assert_allclose(joints - joints[0], root_relative, atol=1e-4)
        if name in ("bedlam", "threedpw", "emdb"):
            assert record["has_intrinsics"]
        if record["has_translation"]:
            projected = (joints + record["translation"]) @ record["intrinsics"].T
            np.testing.assert_allclose(
                projected[:, :2] / projected[:, 2:], person.pixels(person.joints), atol=0.5
            )


def test_translations_are_known_where_the_release_tells(manual):
    known = {
        name: [int(r["has_translation"]) for r, _ in read_all(manual, name)]
        for name in ("bedlam", "threedpw", "emdb", "hmr2_eval")
    }
    assert (
        known["bedlam"] == [1, 1, 1]
        and set(known["threedpw"]) == {1}
        and set(known["hmr2_eval"]) == {0}
    )
    assert known["emdb"] == [1] * 6  # found from the projected pelvis


def test_threedpw_is_moved_into_the_camera(manual):
    for record, person in read_all(manual, "threedpw"):
        np.testing.assert_allclose(record["translation"], person.translation, atol=2e-4)
        np.testing.assert_allclose(record["joints24_3d"][:, :3], person.joints, atol=1e-4)
        assert record["joints24_3d"][:, 3].min() == 1


def test_smpl_turns_about_its_pelvis(tmp_path):
    """The body posed in the camera is the body posed in the world, then moved; without the pelvis'
    term it is decimetres off."""
    studio = people_fixtures.Studio(tmp_path, None, 3)
    turn, shift = Rotation.from_rotvec([2.5, 0.4, -0.7]).as_matrix(), np.array([0.3, -0.2, 5.0])
    body, world = studio.body("male"), studio.person((640, 480), gender="male")
    trans = np.array([1.0, -2.0, 0.5])
    moved = pose_body(body, world.pose, world.betas, trans) @ turn.T + shift
    pelvis = pose_body(body, np.zeros(72), world.betas, np.zeros(3))[0]
    pose = np.concatenate([root_in_camera(world.pose[None, :3], turn[None])[0], world.pose[3:]])
    there = translation_in_camera(trans[None], pelvis, turn[None], shift[None])[0]
    np.testing.assert_allclose(pose_body(body, pose, world.betas, there), moved, atol=1e-9)
    naive = turn @ trans + shift
    assert np.linalg.norm(pose_body(body, pose, world.betas, naive) - moved, axis=-1).min() > 0.2


def test_rest_pelvis_is_found_only_when_the_frames_tell(tmp_path):
    studio, rng = people_fixtures.Studio(tmp_path, None, 4), np.random.default_rng(4)
    intrinsics, pelvis = studio.intrinsics(1440, 1920), np.array([0.01, -0.22, 0.03])
    turn, trans = (
        Rotation.from_rotvec(rng.normal(0, 0.5, (6, 3))).as_matrix(),
        rng.normal(0, 1, (6, 3)),
    )
    shift = (
        np.array([0, 0, 4.0]) + rng.normal(0, 0.3, (6, 3)) - np.einsum("nij,nj->ni", turn, trans)
    )
    points = (np.einsum("nij,nj->ni", turn, trans + pelvis) + shift) @ intrinsics.T
    pixels = points[:, :2] / points[:, 2:]
    np.testing.assert_allclose(
        rest_pelvis(pixels, trans, turn, shift, intrinsics), pelvis, atol=1e-9
    )
    assert (
        rest_pelvis(pixels[:1], trans[:1], turn[:1], shift[:1], intrinsics) is None
    )  # one ray has no depth
    assert (
        rest_pelvis(pixels + rng.normal(0, 20, pixels.shape), trans, turn, shift, intrinsics)
        is None
    )  # labels that do not fit


def test_threedpw_leaves_out_frames_without_a_camera(manual):
    records, report = read(manual[0], "threedpw", "test")
    assert [(record["person"], record["frame"]) for record in records] == [
        (0, 0),
        (0, 2),
        (1, 0),
        (1, 1),
        (1, 2),
    ]
    assert [record["gender"] for record in records] == ["male"] * 2 + ["female"] * 3
    assert not report.listed


def test_emdb_leaves_out_bad_frames_and_other_sequences(manual):
    assert [r["frame"] for r in read(manual[0], "emdb", "emdb1")[0]] == [0, 2, 3]
    assert {r["sequence"] for r in read(manual[0], "emdb", "emdb2")[0]} == {"P2_20_outdoor_walk"}


def test_boxes_have_the_right_scale(manual):
    """/200 scales, pixel scales and the EMDB npz that mixes them all come out as the same boxes."""
    factors = {"hmr2_eval": 1.2, "bedlam": 1.2, "human36m": 0.9 * 1.3, "mpi_inf_3dhp": 1.2}
    for name, factor in factors.items():
        shape = np.array([0.75 if name == "bedlam" else 1.0, 1.0])  # its squares are crops
        for record, person in read_all(manual, name):
            x0, y0, x1, y1 = record["box"]
            np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], person.centre, atol=0.01)
            np.testing.assert_allclose([x1 - x0, y1 - y0], person.side(factor) * shape, atol=0.01)
    for record, person in read_all(manual, "hmr2_coco"):
        np.testing.assert_allclose(record["box"], person.box, atol=0.01)
    for record, person in read_all(manual, "emdb"):
        np.testing.assert_allclose(record["box"], person.box, atol=0.01)


def test_annotation_to_crop_to_joints(manual):
    """Image and keypoints go through the crop together: the painted pelvis is where the cropped
    keypoint says."""
    pelvis = BODY44.index("openpose_mid_hip")
    for record, person in read_all(manual, "bedlam"):
        x0, y0, x1, y1 = record["box"]
        crop = np.array([(x0 + x1) / 2, (y0 + y1) / 2, 1.1 * max(x1 - x0, y1 - y0)])
        view = CropCamera(crop, np.float64(0), np.zeros(2))  # only the crop is used
        image = np.asarray(Image.open(io.BytesIO(record["image"])).convert("RGB"))
        picture = crop_image(image, crop)
        here = (view.to_crop(record["keypoints2d"][pelvis : pelvis + 1, :2])[0] + 1) * 128
        red = (picture[..., 0] > 0.75) & (picture[..., 1] < 0.25) & (picture[..., 2] < 0.25)
        rows, columns = np.nonzero(red)
        np.testing.assert_allclose([columns.mean() + 0.5, rows.mean() + 0.5], here, atol=0.5)
        true = (view.to_crop(person.pixels(person.joints)[:1])[0] + 1) * 128
        np.testing.assert_allclose(here, true, atol=0.01)


def test_masks_belong_to_their_person(manual):
    (first, person), (second, _), (third, _), _ = read_all(manual, "hmr2_coco")
    mask = np.asarray(Image.open(io.BytesIO(first["mask"])))
    x0, y0, x1, y1 = person.box.round().astype(int)
    assert (
        mask.shape == (480, 640)
        and (mask[y0:y1, x0:x1] == 255).all()
        and (mask > 0).sum() == (y1 - y0) * (x1 - x0)
    )
    assert second["mask"] not in (b"", first["mask"]) and third["mask"] == b""


def test_people_without_smpl_labels_have_zeros(manual):
    record = read_all(manual, "hmr2_coco")[2][0]
    assert (
        not record["has_pose"]
        and not record["has_betas"]
        and not record["body_pose"].any()
        and not record["has_translation"]
    )
    assert all(not r["has_gender"] for r, _ in read_all(manual, "human36m"))


def test_a_closeup_that_was_turned_already_stays(tmp_path):
    truth = people_fixtures.write("bedlam", tmp_path)
    scene = next((tmp_path / find("bedlam").folder).glob("*closeup/*.tar"))
    with tarfile.open(scene) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]
    stream = io.BytesIO()
    Image.open(io.BytesIO(members[0][1])).transpose(Image.Transpose.ROTATE_270).save(stream, "PNG")
    people_fixtures.Studio(tmp_path, None, 0).put_tar(
        str(scene.relative_to(tmp_path)), [(members[0][0], stream.getvalue()), members[1]]
    )
    records, _ = read(tmp_path, "bedlam")
    assert records[-1]["image"] == stream.getvalue() and tuple(records[-1]["image_size"]) == truth[
        -1
    ].size == (720, 1280)


def test_own_labels_are_not_filtered(manual):
    """The shape of a person in one's own tars may be beyond what 4D-Humans trusts in its
    pseudo-labels."""
    records, _ = read(manual[0], "own_tars", "val")
    assert [r["has_pose"] for r in records] == [1.0] and (
        records[0]["keypoints3d"][:, 3] == 1
    ).all()


def test_evaluation_npz_drops_the_weak_3d_joints(manual):
    records, _ = read(manual[0], "hmr2_eval", "threedpw_test")
    for record in records:
        assert not record["keypoints3d"][1:15].any() and (record["keypoints3d"][15:, 3] == 1).all()
    assert [record["gender"] for record in records] == ["male", "female"]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_release_says_what_to_download(tmp_path, name):
    source = find(name)
    with pytest.raises(MissingError) as caught:
        list(source.records(tmp_path, source.splits[0], source.report(skip_bad=True)))
    assert source.layout in str(caught.value) and name in str(caught.value)
    (tmp_path / source.folder).mkdir(parents=True)  # the folder is there, but empty
    with pytest.raises(MissingError) as caught:
        list(source.records(tmp_path, source.splits[0], source.report(skip_bad=True)))
    assert source.layout in str(caught.value)


def test_a_split_that_is_no_split(manual):
    with pytest.raises(InputError, match="it has train, validation, test"):
        list(find("threedpw").records(manual[0], "val", find("threedpw").report()))
