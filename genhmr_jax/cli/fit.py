"""`genhmr fit`: the pose, the shape and the translation of a body from meshes with its vertices.

    genhmr fit mesh.obj --body neutral --out fit.npz
    genhmr fit results/*.obj --body neutral --camera --out fits

JAX is imported only when the command runs.
"""

import argparse
import os
import pathlib

from genhmr_jax.cli.flag_types import number
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag, photo_path


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    meshes = "OBJ or PLY files with the vertices of the body, in its order, in metres"
    add("meshes", nargs="+", type=photo_path, metavar="MESH", help=meshes)
    bodies = "neutral, male, female, lite, or your SMPL .pkl or .npz (default: neutral)"
    add("--body", default="neutral", type=path_flag, help=bodies)
    out = "FILE.npz for one mesh; else a folder, made if missing, of one STEM.npz for each mesh"
    add("--out", required=True, type=path_flag, metavar="NPZ_OR_DIR", help=out)
    camera = (
        "the meshes are from `genhmr recover --save`, which turns them upright: undo that, so that "
        "the results are in camera coordinates"
    )
    add("--camera", action="store_true", help=camera)
    noise = "error of the vertices, mm; a larger one keeps pose and shape usual (default: 1)"
    add("--noise", type=number(float, 0.01, 1000), default=1.0, metavar="MM", help=noise)
    steps = "steps of the fit (default: 20)"
    add("--steps", type=number(int, 0, 1000), default=20, metavar="N", help=steps)


def run(args: argparse.Namespace) -> int:
    """Fit every mesh, and print its mean vertex error.

    A mesh that cannot be read or fitted is reported in one line on stderr; the others are fitted.

    Returns:
      0, or 1 if any mesh failed.

    Raises:
      InputError: the body or the output is at fault.
    """
    from genhmr_jax.geometry.bodies import load_body
    from genhmr_jax.io import compilation_cache
    from genhmr_jax.io.terminal import complain, say

    # 1. The outputs and the body, before any work.
    paths = [pathlib.Path(path) for path in dict.fromkeys(args.meshes)]
    outputs = _outputs(pathlib.Path(args.out), paths, args.body)
    body = load_body(args.body)
    compilation_cache.enable()
    # 2. The meshes.
    failures = 0
    for path, out in zip(paths, outputs, strict=True):
        try:
            error = _fit(path, out, body, args)
        except InputError as found:
            if os.environ.get("GENHMR_DEBUG"):
                raise
            failures += 1
            complain(found)
            continue
        say(f"{path}: mean vertex error {1e3 * error:.3f} mm -> {out}")
    return 1 if failures else 0


def _outputs(out: pathlib.Path, meshes: list[pathlib.Path], body: str) -> list[pathlib.Path]:
    """The .npz of each mesh; makes their folder.

    Raises:
      InputError: one file for several meshes, the file of the body, or a place that cannot be
        written to.
    """
    from genhmr_jax.io.atomic import check_writable
    from genhmr_jax.io.image_files import name_outputs
    from genhmr_jax.recover.report import make_writable

    is_body = lambda path: path.exists() and path.resolve() == pathlib.Path(body).resolve()
    if out.suffix.lower() == ".npz" and not out.is_dir():
        if len(meshes) > 1:
            problem = f"is one file, for {len(meshes)} meshes"
            raise InputError(out, problem, "give a folder as --out")
        if is_body(out):
            raise InputError(out, "is the file of the body", "choose another --out")
        return [check_writable(out)]
    make_writable(out)
    named = name_outputs(meshes, lambda stem: is_body(out / f"{stem}.npz"))
    return [out / f"{file.stem}.npz" for file in named]


def _fit(path: pathlib.Path, out: pathlib.Path, body, args: argparse.Namespace) -> float:
    """Fit one mesh, write its .npz, and return the mean vertex error in metres.

    The arrays are named as those of `genhmr recover`, for one person: global_orient (1, 3),
    body_pose (1, 69), betas (1, S), translation (1, 3) metres; and error (1,) metres. They are in
    the coordinates of the file, or with --camera in those of the camera.

    Raises:
      InputError: the mesh cannot be read, is not of this body, or cannot be fitted; or the result
        cannot be written.
    """
    import jax
    import numpy as np
    from smpl_jax.rotations import matrix_to_axis_angle

    from genhmr_jax.core.mesh_fit import MeshFitSpec, fit_mesh
    from genhmr_jax.io.atomic import atomic_path
    from genhmr_jax.io.mesh_files import read_vertices
    from genhmr_jax.render.export.mesh import Y_UP

    vertices = read_vertices(path)
    if len(vertices) != body.num_vertices:
        problem = f"has {len(vertices)} vertices, but the body {args.body} has {body.num_vertices}"
        raise InputError(path, problem, "give the --body of this mesh, with all its vertices")
    if args.camera:
        vertices = vertices * Y_UP
    spec = MeshFitSpec(steps=args.steps, noise=args.noise / 1e3)
    fit = jax.jit(fit_mesh, static_argnames="spec")(
        body, vertices[None].astype(np.float32), spec=spec
    )
    pose = np.asarray(matrix_to_axis_angle(fit.rotmats)).reshape(1, -1)
    arrays = {
        "global_orient": pose[:, :3],
        "body_pose": pose[:, 3:],
        "betas": np.asarray(fit.betas),
        "translation": np.asarray(fit.translation),
        "error": np.asarray(fit.error),
    }
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise InputError(path, "cannot be fitted", "check that its unit is the metre")
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)
    return float(fit.error[0])
