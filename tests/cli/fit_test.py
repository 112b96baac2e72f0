"""`genhmr fit`: exported meshes give back their parameters, and bad files cost one line each."""

import numpy as np
import pytest
import smpl_jax

from genhmr_jax.cli import main
from genhmr_jax.core.mesh_fit import MeshFitSpec
from genhmr_jax.geometry.bodies import load_body
from genhmr_jax.io import compilation_cache
from genhmr_jax.render.export.mesh import Y_UP, save_mesh

RNG = np.random.default_rng(0)
BODY = load_body("lite")
POSE, BETAS, SHIFT = RNG.normal(0, 0.3, (24, 3)), RNG.normal(0, 1, 10), np.array([0.2, 0.1, 3.0])
POSE, BETAS, SHIFT = (x.astype(np.float32) for x in (POSE, BETAS, SHIFT))
VERTICES = np.asarray(smpl_jax.forward(BODY, BETAS, POSE, SHIFT).vertices)
STEPS = 8


@pytest.fixture(autouse=True)
def no_cache(monkeypatch):
    """The cache of the user stays as it is."""
    monkeypatch.setattr(compilation_cache, "enable", lambda: None)


@pytest.fixture
def mesh(tmp_path):
    def write(name, vertices=VERTICES):
        save_mesh(tmp_path / name, vertices, np.asarray(BODY.faces))
        return tmp_path / name

    return write


def fit(*arguments, out, body="lite"):
    flags = ["--body", body, "--out", str(out), "--steps", str(STEPS)]
    return main.main(["fit", *map(str, arguments), *flags])


def posed(path):
    """The vertices of the parameters in a file."""
    with np.load(path) as file:
        found = dict(file)
    shapes = {name: array.shape for name, array in found.items()}
    assert shapes == {
        "global_orient": (1, 3),
        "body_pose": (1, 69),
        "betas": (1, 10),
        "translation": (1, 3),
        "error": (1,),
    }
    pose = np.concatenate([found["global_orient"], found["body_pose"]], -1)
    vertices = smpl_jax.forward(BODY, found["betas"], pose, found["translation"]).vertices
    return np.asarray(vertices)[0], found


@pytest.mark.parametrize("suffix", ["obj", "ply"])
def test_an_exported_mesh_gives_back_its_parameters(tmp_path, mesh, capsys, suffix):
    path, out = mesh(f"person.{suffix}"), tmp_path / "fit.npz"
    assert fit(path, "--camera", out=out) == 0
    vertices, found = posed(out)
    error = 1e3 * np.linalg.norm(vertices - VERTICES, axis=-1).mean()
    assert error < 0.1
    np.testing.assert_allclose(1e3 * found["error"][0], error, atol=0.01)
    np.testing.assert_allclose(found["betas"][0], BETAS, atol=0.05)
    np.testing.assert_allclose(found["global_orient"][0], POSE[0], atol=0.01)
    (line,) = capsys.readouterr().out.splitlines()
    assert line == f"{path}: mean vertex error {1e3 * found['error'][0]:.3f} mm -> {out}"
    # Without the flag, the parameters are those of the file's own coordinates.
    assert fit(path, out=out) == 0
    np.testing.assert_allclose(posed(out)[0], VERTICES * Y_UP, atol=1e-3)


def test_several_meshes_of_which_some_are_bad(tmp_path, mesh, capsys):
    good = [mesh("a.obj"), mesh("b.ply", VERTICES + 1)]
    bad = {name: tmp_path / name for name in BAD}
    for name, (content, _) in BAD.items():
        if content is not None:
            bad[name].write_bytes(content)
    out = tmp_path / "out"
    assert fit(good[0], *bad.values(), good[1], out=out) == 1
    printed = capsys.readouterr()
    assert [line.split(":")[0] for line in printed.out.splitlines()] == [str(p) for p in good]
    errors = printed.err.splitlines()
    assert len(errors) == len(bad)
    for line, (name, (_, problem)) in zip(errors, BAD.items(), strict=True):
        assert line.startswith(f"genhmr: {bad[name]}: {problem}") and "; " in line
    assert sorted(path.name for path in out.iterdir()) == ["a.npz", "b.npz"]
    np.testing.assert_allclose(posed(out / "b.npz")[0], (VERTICES + 1) * Y_UP, atol=1e-3)


NUMBERS = b"\n".join(b"v %d 0 0" % i for i in range(BODY.num_vertices))
BAD = {
    "gone.obj": (None, "no such file"),
    "few.obj": (b"v 0 0 0\nv 1 0 0\n", "has 2 vertices, but the body lite has 1719"),
    "empty.obj": (b"", "has no vertices"),
    "short.obj": (b"v 0 0\n", "is no OBJ file, or it is damaged (1 vertices have fewer"),
    "word.obj": (b"v 0 zero 0\n", "is no OBJ file, or it is damaged"),
    "nan.obj": (NUMBERS.replace(b"v 7 0 0", b"v nan 0 0"), "1 of 1719 vertices are not finite"),
    "huge.obj": (NUMBERS.replace(b"v 7 0 0", b"v 1e30 0 0"), "cannot be fitted"),
    "text.ply": (b"hello", "is no PLY file, or it is damaged"),
    "half.ply": (b"ply\nformat ascii 1.0\nelement vertex 5\nproperty float x\n", "is no PLY"),
    "mesh.glb": (b"glTF", "is no OBJ or PLY file by its suffix"),
    "image.png": (b"", "is no OBJ or PLY file by its suffix"),
}  # fmt: skip
"""Bad files: the content, and how the line about it begins."""


def test_obj_with_normals_colours_and_quads_is_read(tmp_path):
    lines = ["# a comment", "mtllib x.mtl", "o body"]
    lines += ["v {:.6f} {:.6f} {:.6f} 0.5 0.5 0.5".format(*v) for v in VERTICES]
    lines += ["vn 0 0 1", "vt 0 0", "f 1/1/1 2/1/1 3/1/1 4/1/1"]
    (tmp_path / "x.OBJ").write_text("\r\n".join(lines))
    assert fit(tmp_path / "x.OBJ", out=tmp_path / "x.npz") == 0
    np.testing.assert_allclose(posed(tmp_path / "x.npz")[0], VERTICES, atol=1e-3)


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path, mesh, capsys):
    paths = mesh("a.obj"), mesh("b.obj")
    (tmp_path / "file").write_text("")
    body = tmp_path / "body.npz"
    body.write_bytes(b"some body")
    for arguments, flags, problem in (
        (paths, {"out": tmp_path / "x.npz"}, "x.npz: is one file, for 2 meshes; give a folder"),
        (paths, {"out": tmp_path / "file"}, "file: is a file, not a directory"),
        (paths[:1], {"out": tmp_path / "no" / "x.npz"}, "x.npz: cannot be written"),
        (paths[:1], {"out": body, "body": str(body)}, "body.npz: is the file of the body"),
        (paths[:1], {"out": tmp_path / "x.npz", "body": "fat"}, "fat: no such body"),
    ):
        assert fit(*arguments, **flags) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert problem in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.obj", "b.obj", "body.npz", "file"]
    assert body.read_bytes() == b"some body"


def test_a_write_that_fails_leaves_nothing_behind(tmp_path, mesh, capsys, monkeypatch):
    def disk_full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", disk_full)
    assert fit(mesh("a.obj"), out=tmp_path / "out") == 1
    assert "a.npz: cannot be written (No space left on device)" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_meshes_of_one_name_do_not_overwrite_each_other(tmp_path, mesh, capsys):
    paths = mesh("a.obj"), mesh("a.ply", VERTICES + 1)
    assert fit(*paths, out=tmp_path / "out") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a_obj.npz", "a_ply.npz"]


def test_defaults_are_those_of_the_fit(tmp_path):
    args = main.build_parser().parse_args(["fit", "x.obj", "--out", "x.npz"])
    assert MeshFitSpec(steps=args.steps, noise=args.noise / 1e3) == MeshFitSpec()
    for flags in ("--noise 0", "--noise nan", "--steps -1"):
        with pytest.raises(SystemExit) as stop:
            main.main(["fit", "x.obj", "--out", str(tmp_path / "x.npz"), *flags.split()])
        assert stop.value.code == 2
