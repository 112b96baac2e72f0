import jax
import jax.numpy as jnp
import numpy as np
import pytest
import smpl_jax
from smpl_jax.keypoints import SMPL24, SMPL24_FLIP, SMPL_VERTEX_IDS

from genhmr_jax.geometry import bodies
from genhmr_jax.geometry.bodies import available_bodies, load_body
from genhmr_jax.io.errors import InputError

VERTICES = {"neutral": 6899, "male": 6899, "female": 6899, "lite": 1719}


def _closed(faces: np.ndarray) -> bool:
    """Every edge is used by exactly two faces, once in each direction."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forth, back = (set(map(tuple, e)) for e in (edges, edges[:, ::-1]))
    return len(forth) == len(edges) and forth == back


def test_available_bodies():
    assert set(available_bodies()) == set(VERTICES)


@pytest.mark.parametrize("name", sorted(VERTICES))
def test_shipped_body_is_a_sound_person(name):
    model = load_body(name)
    faces, template = np.asarray(model.faces), np.asarray(model.template).T
    assert (
        template.shape == (VERTICES[name], 3)
        and model.num_betas == 10
        and model.joint_names == SMPL24
    )
    assert _closed(faces)
    corners = template[faces]
    volume = np.sum(corners[:, 0] * np.cross(corners[:, 1], corners[:, 2])) / 6
    assert 0.04 < volume < 0.11  # cubic metres; positive: faces look outwards
    height = np.ptp(template[:, 1])
    assert 1.5 < height < 1.85
    np.testing.assert_allclose(np.sum(model.weights, 0), 1, atol=1e-5)
    assert np.max(np.sum(np.asarray(model.weights) > 0, 0)) <= 4
    # Left is +x, up +y, forward +z, and the body is symmetric.
    joints = np.asarray(model.joint_template)
    np.testing.assert_allclose(joints[list(SMPL24_FLIP)] * [-1, 1, 1], joints, atol=2e-5)
    place = dict(zip(SMPL24, joints, strict=True))
    assert place["left_wrist"][0] > place["left_elbow"][0] > place["left_shoulder"][0] > 0.1
    assert place["head"][1] > place["pelvis"][1] > place["left_knee"][1] > place["left_ankle"][1]
    assert template[model.vertex_ids["nose"]][2] > place["head"][2] + 0.05
    assert set(model.vertex_ids) == set(SMPL_VERTEX_IDS)


def test_mirrored_pose_gives_the_mirrored_body():
    arrays = dict(np.load(bodies._BODIES.joinpath("neutral.npz")))
    rng = np.random.default_rng(0)
    pose, betas = rng.normal(0, 0.4, (24, 3)).astype(np.float32), rng.normal(size=10)
    model = load_body()
    straight, mirrored = (
        smpl_jax.forward(model, betas, p) for p in (pose, smpl_jax.keypoints.flip_pose(pose))
    )
    np.testing.assert_allclose(
        mirrored.vertices, np.asarray(straight.vertices)[arrays["mirror"]] * [-1, 1, 1], atol=1e-4
    )
    np.testing.assert_allclose(
        mirrored.joints, np.asarray(straight.joints)[list(SMPL24_FLIP)] * [-1, 1, 1], atol=1e-4
    )


def test_bodies_are_kept():
    assert load_body("lite") is load_body("lite")


def test_first_load_may_be_inside_jit(monkeypatch):
    bodies._load.cache_clear()
    points = jax.jit(
        lambda pose: smpl_jax.forward(load_body("lite"), jnp.zeros(10), pose).vertices
    )(jnp.zeros(72))
    assert np.all(np.isfinite(points))
    assert np.all(np.isfinite(np.asarray(load_body("lite").template)))


def test_a_replaced_file_is_read_again(tmp_path):
    arrays = dict(np.load(bodies._BODIES.joinpath("lite.npz")))
    path = tmp_path / "mine.npz"
    np.savez(path, **arrays)
    first = load_body(path)
    assert load_body(path) is first
    arrays["v_template"] = arrays["v_template"] + 1
    path.unlink()
    np.savez(path, **arrays)
    np.testing.assert_allclose(load_body(path).template, first.template + 1, atol=1e-5)


def test_unknown_body_says_what_there_is_and_where_to_get_smpl(tmp_path):
    for name in ("neutrall", tmp_path / "SMPL_NEUTRAL.pkl", ""):
        with pytest.raises(
            InputError,
            match=r"no such body; choose female, lite, male, neutral.*https://smpl.is.tue.mpg.de",
        ):
            load_body(name)


def test_broken_file_names_the_file_once(tmp_path):
    path = tmp_path / "SMPL_NEUTRAL.pkl"
    path.write_bytes(b"not a pickle")
    with pytest.raises(
        InputError, match="SMPL_NEUTRAL.pkl: refused.*or use a shipped body"
    ) as error:
        load_body(path)
    assert str(error.value).count("SMPL_NEUTRAL.pkl") == 1


def without_names(name: str, **changes) -> dict[str, np.ndarray]:
    """The arrays of a free body that SMPL's own files have too: no vertex is named."""
    arrays = dict(np.load(bodies._BODIES.joinpath(f"{name}.npz")))
    keys = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights", "kintree_table", "f")
    return {key: arrays[key] for key in keys} | changes


GAPS = {"neutral": 0.01, "lite": 0.01, "male": 16, "female": 16}  # mm


@pytest.mark.parametrize("name", GAPS)
def test_keypoints_of_a_body_that_does_not_name_them(tmp_path, name):
    np.savez(tmp_path / "mine.npz", **without_names(name))
    model, named = load_body(tmp_path / "mine.npz"), load_body(name)
    assert set(model.vertex_ids) == set(SMPL_VERTEX_IDS)
    template = np.asarray(model.template).T
    pairs = [(vertex, named.vertex_ids[key]) for key, vertex in model.vertex_ids.items()]
    gaps = [np.linalg.norm(template[found] - template[right]) for found, right in pairs]
    assert max(gaps) * 1000 < GAPS[name]


def test_names_that_the_file_gives_are_kept(tmp_path):
    given = {"vertex_ids_names": np.array(["nose", "LHeel"]), "vertex_ids": np.array([5, 6])}
    np.savez(tmp_path / "mine.npz", **without_names("lite"), **given)
    ids = load_body(tmp_path / "mine.npz").vertex_ids
    assert ids["nose"] == 5 and ids["LHeel"] == 6 and set(ids) == set(SMPL_VERTEX_IDS)
    assert ids["RHeel"] == load_body("lite").vertex_ids["RHeel"]


def test_a_body_of_few_shape_directions_has_all_that_recovery_needs(tmp_path):
    few = without_names("lite")["shapedirs"][..., :4]
    np.savez(tmp_path / "mine.npz", **without_names("lite", shapedirs=few))
    model = load_body(tmp_path / "mine.npz")
    assert model.num_betas == 10
    shape = lambda betas: smpl_jax.forward(model, betas, jnp.zeros(72)).vertices
    mean, fourth, fifth = (shape(jnp.zeros(10).at[i].set(b)) for i, b in ((0, 0), (3, 3), (4, 3)))
    assert np.ptp(np.asarray(fourth - mean)) > 0.001
    np.testing.assert_allclose(fifth, mean, atol=1e-6)


def test_a_folder_is_no_body(tmp_path):
    with pytest.raises(InputError, match=r": is a folder; give the file in it$"):
        load_body(tmp_path)
    (tmp_path / "SMPL_MALE.pkl").touch()
    (tmp_path / "._SMPL_FEMALE.pkl").touch()
    with pytest.raises(InputError, match=r"give the file in it, such as .*/SMPL_MALE.pkl$"):
        load_body(tmp_path)


def test_a_web_page_says_to_log_in(tmp_path):
    (tmp_path / "SMPL_MALE.pkl").write_text("<!DOCTYPE html><html><body>Sign in</body></html>")
    line = r"SMPL_MALE.pkl: is a web page, not SMPL's file: log in and download it again; or use a"
    with pytest.raises(InputError, match=line):
        load_body(tmp_path / "SMPL_MALE.pkl")
