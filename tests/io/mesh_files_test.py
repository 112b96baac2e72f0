"""Vertices of mesh files; what the command `genhmr fit` says of bad ones is in fit_test.py."""

import sys

import numpy as np
import pytest
import trimesh

from genhmr_jax.io.mesh_files import read_vertices

HEADER = "ply\n{0}format ascii 1.0\nelement vertex 3\n{0}" + "".join(
    f"property float {axis}\n" for axis in "xyz"
)
BODY = "end_header\n0 0 0\n1 0 0\n0 1 0.5\n"


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_ply_as_trimesh_writes_it(tmp_path, encoding):
    mesh = trimesh.creation.icosphere(subdivisions=2)
    mesh.export(tmp_path / "x.ply", encoding=encoding)
    np.testing.assert_allclose(read_vertices(tmp_path / "x.ply"), mesh.vertices, atol=1e-6)


@pytest.mark.parametrize("word", ["comment TextureFile", "obj_info texturefile", "texturefile"])
@pytest.mark.parametrize("name", ["secret.png", "../secret.png", "/dev/zero", "missing.png"])
def test_a_ply_opens_no_other_file(tmp_path, word, name, capsys):
    """trimesh opens the picture that a header names, with any decoder; older versions anywhere."""
    folder = tmp_path / "meshes"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "secret.png").write_bytes(b"no picture")
    (folder / "x.ply").write_text(HEADER.format(f"{word} {name}\n") + BODY)
    opened, listening = [], True

    def listen(event, arguments):
        if listening and event == "open":
            opened.append(str(arguments[0]))

    sys.addaudithook(listen)  # it cannot be removed
    try:
        vertices = read_vertices(folder / "x.ply")
    finally:
        listening = False
    assert vertices.shape == (3, 3) and vertices[2].tolist() == [0, 1, 0.5]
    assert not [path for path in opened if name in path]
    assert not capsys.readouterr().err
