"""Coarse meshes: the maps down and up, the surface, its symmetry, and where meshes are stored."""

import collections
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import trimesh

from genhmr_jax.geometry import mesh
from genhmr_jax.geometry.bodies import available_bodies, load_body
from genhmr_jax.geometry.decimation import LEAST, decimate
from genhmr_jax.io import program_store

BODIES = available_bodies()
NEUTRAL, LITE = load_body("neutral"), load_body("lite")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """The coarse mesh of each shipped body, none of which may be computed or written."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENHMR_CACHE", str(cache))
        patch.setattr(mesh, "simplify", None)
        found = {name: mesh.coarse_mesh(load_body(name)) for name in BODIES}
    assert not any(cache.iterdir())
    return found


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of its own."""
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "coarse"


def template_of(body):
    return np.asarray(body.template).T


def own_body(seed=0):
    """The lite body as a user's file might have it: nearly symmetric, and not shipped."""
    noise = np.random.default_rng(seed).normal(0, 1e-4, LITE.template.shape)
    return dataclasses.replace(LITE, template=jnp.asarray(LITE.template + noise, jnp.float32))


def same(found, expected):
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def euler_characteristic(faces):
    """V - E + F of a manifold whose faces have the same orientation, which is checked."""
    directed = collections.Counter()
    for a, b, c in np.asarray(faces).tolist():
        assert len({a, b, c}) == 3
        directed.update([(a, b), (b, c), (c, a)])
    assert set(directed.values()) == {1}  # an edge has one face on each side at most
    edges = {tuple(sorted(edge)) for edge in directed}
    around = collections.defaultdict(dict)
    for a, b, c in np.asarray(faces).tolist():
        for corner, after, last in ((a, b, c), (b, c, a), (c, a, b)):
            around[corner][after] = last
    for fan in around.values():  # the faces around a vertex are one fan, open or closed
        start = next(iter(set(fan) - set(fan.values())), next(iter(fan)))
        steps, at = 0, start
        while at in fan and steps < len(fan):
            steps, at = steps + 1, fan[at]
        assert steps == len(fan)
    return len(around) - len(edges) + len(faces)


def test_down_chooses_and_up_returns_the_chosen(stored):
    for name, coarse in stored.items():
        assert coarse.vertices.dtype == coarse.faces.dtype == coarse.corners.dtype == np.int32
        assert coarse.vertices.shape == (431,) and np.all(np.diff(coarse.vertices) > 0)
        assert coarse.weights.shape == (load_body(name).num_vertices, 3)
        assert coarse.weights.dtype == np.float32 and coarse.weights.min() >= 0
        np.testing.assert_allclose(coarse.weights.sum(-1), 1.0, atol=2e-7)
    coarse = stored["neutral"]
    fine = np.random.default_rng(0).normal(size=(2, 3, NEUTRAL.num_vertices, 5)).astype(np.float32)
    low = jax.jit(lambda coarse, fine: coarse.down(fine))(coarse, fine)
    np.testing.assert_array_equal(low, fine[:, :, coarse.vertices])
    high = np.asarray(jax.jit(lambda coarse, low: coarse.up(low))(coarse, low))
    np.testing.assert_array_equal(high[:, :, coarse.vertices], low)
    parts = np.asarray(low)[:, :, coarse.corners] * coarse.weights[:, :, None]
    np.testing.assert_allclose(high, parts.sum(-2), atol=1e-6)


@pytest.mark.parametrize("name", BODIES)
def test_up_is_close_to_the_template(stored, name):
    """Measured: 3.15 to 3.50 mm in the mean, and 13.7 to 16.4 mm at most."""
    template, coarse = template_of(load_body(name)), stored[name]
    error = 1e3 * np.linalg.norm(coarse.up(coarse.down(template)) - template, axis=-1)
    assert error.mean() < 3.55 and error.max() < 16.6
    # The point of the map is the closest one of the whole surface, by another implementation.
    some = np.random.default_rng(0).choice(len(template), 40, replace=False)
    surface = trimesh.Trimesh(template[coarse.vertices], coarse.faces, process=False)
    distance = trimesh.proximity.closest_point_naive(surface, template[some])[1]
    np.testing.assert_allclose(error[some], 1e3 * distance, atol=1e-3)


@pytest.mark.parametrize("name", BODIES)
def test_the_coarse_body_is_one_closed_surface_with_all_its_parts(stored, name):
    body, coarse = load_body(name), stored[name]
    assert euler_characteristic(coarse.faces) == euler_characteristic(body.faces) == 2
    assert np.array_equal(np.unique(coarse.faces), np.arange(431))
    joints = np.asarray(body.weights).argmax(0)[coarse.vertices]
    counts = np.bincount(joints, minlength=24)
    assert counts.min() >= LEAST and counts[[10, 11, 22, 23]].min() >= 8  # feet and hands


def test_the_coarse_body_is_its_own_mirror_image(stored):
    template, coarse = template_of(NEUTRAL), stored["neutral"]
    points = template[coarse.vertices]
    index = {tuple(point): i for i, point in enumerate(points.tolist())}
    image = np.array([index[x and -x, y, z] for x, y, z in points.tolist()])
    as_set = lambda faces: {tuple(np.roll(f, -f.argmin()).tolist()) for f in faces}
    assert as_set(image[coarse.faces][:, ::-1]) == as_set(coarse.faces)
    assert 5 < np.sum(image == np.arange(431)) < 100


def test_adjacency_is_that_of_the_definition(stored):
    coarse = stored["neutral"]
    table = np.zeros((431, 431))
    for face in coarse.faces.tolist():
        for i in face:
            for j in face:
                table[i, j] = 1.0
    degree = table.sum(1)
    for i in range(431):
        for j in np.flatnonzero(table[i]):
            table[i, j] /= np.sqrt(degree[i] * degree[j])
    assert coarse.adjacency.dtype == np.float32
    np.testing.assert_allclose(coarse.adjacency, table, atol=1e-7)
    # The largest eigenvalue is 1: that of a positive vector, with no negative entry (Perron).
    assert coarse.adjacency.min() == 0
    np.testing.assert_allclose(coarse.adjacency @ np.sqrt(degree), np.sqrt(degree), rtol=1e-6)


@pytest.mark.parametrize("name", ["lite", "neutral"])
def test_the_stored_mesh_is_what_is_computed(stored, name):
    same(stored[name], mesh.simplify_body(load_body(name)))


def test_the_package_has_a_small_file_for_each_body():
    files = {file.name: len(file.read_bytes()) for file in mesh._STORED.iterdir()}
    assert files.keys() == {mesh.file_name(load_body(name)) for name in BODIES}
    assert len(files) == 4 and max(files.values()) < 6000


def test_a_users_body_is_computed_once(cache, monkeypatch):
    body = own_body()
    first = mesh.coarse_mesh(body)
    assert len(first.vertices) == 431 and euler_characteristic(first.faces) == 2
    # Nearly symmetric: what remains are vertices of the lite body with their images.
    points = template_of(LITE)[first.vertices]
    assert set(map(tuple, points.tolist())) == {(x and -x, y, z) for x, y, z in points.tolist()}
    assert [file.name for file in cache.iterdir()] == [mesh.file_name(body)]
    monkeypatch.setattr(mesh, "simplify", None)
    same(mesh.coarse_mesh(body), first)
    # Another count or another body is another file.
    names = {mesh.file_name(other, count) for other in (body, own_body(1)) for count in (430, 431)}
    assert len(names) == 4


FEW_STEPS = 1600
DAMAGES = ("empty", "half", "one bit", "foreign", "of another body", "a folder")


@pytest.fixture(scope="module")
def expected():
    """The mesh of `own_body()` with FEW_STEPS vertices, made without a cache."""
    return mesh.simplify_body(own_body(), FEW_STEPS)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_cache_costs_no_more_than_none(cache, stored, expected, damage):
    entry, content = cache / mesh.file_name(own_body(), FEW_STEPS), mesh.to_bytes(expected)
    program_store.write(entry, content)
    whole = entry.read_bytes()
    if damage == "foreign":
        program_store.write(entry, b"intact, but no mesh")
    elif damage == "of another body":
        program_store.write(entry, mesh.to_bytes(stored["neutral"]))
    elif damage == "a folder":
        entry.unlink()
        entry.mkdir()
    else:
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        entry.write_bytes({"empty": b"", "half": whole[:middle], "one bit": flipped}[damage])
    same(mesh.coarse_mesh(own_body(), FEW_STEPS), expected)
    assert damage == "a folder" or entry.read_bytes() == whole


def test_without_a_cache_it_is_computed(tmp_path, monkeypatch, expected):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GENHMR_CACHE", str(tmp_path / "file"))
    same(mesh.coarse_mesh(own_body(), FEW_STEPS), expected)


@pytest.mark.parametrize("shape", ["sheared", "one arm raised"])
def test_a_body_without_symmetry(shape):
    points = template_of(LITE).copy()
    if shape == "sheared":
        points[:, 0] += 0.3 * points[:, 1]
    else:
        arm = points[:, 0] > 0.2
        points[arm, 1] += 0.5 * (points[arm, 0] - 0.2)
    coarse = mesh.simplify(points, np.asarray(LITE.faces))
    assert len(coarse.vertices) == 431 and euler_characteristic(coarse.faces) == 2
    error = np.linalg.norm(coarse.up(coarse.down(points)) - points, axis=-1)
    assert error.mean() < 0.004 and error.max() < 0.02


def sheet(columns, rows, width):
    """A flat grid, `width` apart in x and 1 in y; two triangles a square, which face +z."""
    x, y = np.meshgrid(np.arange(columns) * width, np.arange(rows))
    first = np.arange(columns * (rows - 1)).reshape(rows - 1, columns)[:, :-1].reshape(-1, 1)
    faces = [first + (0, 1, columns + 1), first + (0, columns + 1, columns)]
    return np.stack([x, y, 0 * x], -1).reshape(-1, 3).astype(float), np.concatenate(faces)


def test_holes_handles_and_components_remain():
    torus, ball = trimesh.creation.torus(1.0, 0.3, 24, 12), trimesh.creation.icosphere(2)
    flat, squares = sheet(15, 14, 1.0)
    points = np.concatenate([torus.vertices, flat + (0, 2, 0), ball.vertices + (0, 20, 0)])
    faces = [torus.faces, squares, ball.faces]
    starts = np.cumsum([0, len(torus.vertices), len(flat)])
    faces = [part + start for part, start in zip(faces, starts, strict=True)]
    kept = decimate(points, np.concatenate(faces), 60)
    assert len(np.unique(kept)) in (60, 61)
    part = np.searchsorted(starts, kept[:, 0], "right") - 1
    for i, expected in enumerate((0, 1, 2)):
        assert euler_characteristic(kept[part == i]) == expected
        assert euler_characteristic(faces[i]) == expected


def test_a_narrow_handle_and_a_narrow_strip_remain():
    """Here almost every collapse would close the handle, or cut the strip into two."""
    torus = trimesh.creation.torus(1.0, 0.02, 40, 5)
    kept = decimate(torus.vertices + (5, 0, 0), torus.faces, 30)
    assert len(np.unique(kept)) == 30 and euler_characteristic(kept) == 0
    points, faces = sheet(2, 30, 0.1)
    kept = decimate(points + (5, 0, 0), faces, 8)
    assert len(np.unique(kept)) == 8 and euler_characteristic(kept) == 1


def test_no_face_turns_over():
    points, faces = sheet(15, 14, 1.0)
    points[:, :2] += np.random.default_rng(0).uniform(-0.24, 0.24, (len(points), 2))
    for count in (150, 100, 60, 30):
        a, b, c = np.moveaxis(points[decimate(points, faces, count)], 1, 0)
        assert np.cross(b - a, c - a)[:, 2].min() > 0


def test_the_count_gives_way_to_the_symmetry_by_one():
    ball = trimesh.creation.icosphere(2)
    points = np.concatenate([ball.vertices + (3, 0, 0), (ball.vertices + (3, 0, 0)) * (-1, 1, 1)])
    faces = np.concatenate([ball.faces, ball.faces[:, ::-1] + len(ball.vertices)])
    for count, expected in ((100, 100), (101, 102)):
        kept = points[np.unique(decimate(points, faces, count))].round(9)
        assert len(kept) == expected
        assert set(map(tuple, kept)) == set(map(tuple, kept * (-1, 1, 1)))


def test_what_is_impossible_is_refused():
    ball = trimesh.creation.icosphere(1)
    assert len(np.unique(decimate(ball.vertices, ball.faces, 4))) == 4
    with pytest.raises(ValueError, match="4 vertices are left, and no more can go: not 2"):
        decimate(ball.vertices, ball.faces, 2)
    np.testing.assert_array_equal(decimate(ball.vertices, ball.faces, 1000), ball.faces)


def test_farthest_points_by_brute_force():
    points = np.random.default_rng(0).normal(size=(60, 3))
    chosen = mesh.farthest_points(points, (7, 3), 20)
    assert chosen[:2] == [7, 3] and len(set(chosen)) == 22
    for i in range(2, 22):
        gaps = np.linalg.norm(points[:, None] - points[chosen[:i]], axis=-1).min(1)
        assert gaps[chosen[i]] == gaps.max()
    assert len(mesh.farthest_points(points, (), 100)) == 60
    assert mesh.farthest_points(points, (), 1) == [0]
