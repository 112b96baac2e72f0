"""Computes the coarse meshes of the shipped bodies: genhmr_jax/assets/coarse/HASH.npz.

  python tools/build_coarse_meshes.py [--out genhmr_jax/assets/coarse]

About two seconds a body. Run it again after a change of a body or of the decimation: increase
`_FORM` in genhmr_jax/geometry/mesh.py if the same body now gives another mesh, so that meshes in
the caches of users are not read any more. Files of former bodies are deleted.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from genhmr_jax.geometry import mesh
from genhmr_jax.geometry.bodies import available_bodies, load_body

ASSETS = Path(__file__).resolve().parents[1] / "genhmr_jax" / "assets" / "coarse"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ASSETS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    written = set()
    for name in available_bodies():
        body = load_body(name)
        started = time.perf_counter()
        coarse = mesh.simplify_body(body)
        seconds = time.perf_counter() - started
        file = args.out / mesh.file_name(body)
        file.write_bytes(mesh.to_bytes(coarse))
        written.add(file)
        template = np.asarray(body.template).T
        error = 1e3 * np.linalg.norm(coarse.up(coarse.down(template)) - template, axis=-1)
        joints = np.asarray(body.weights).argmax(0)[coarse.vertices]
        print(
            f"{name}: {len(coarse.vertices)} vertices, {len(coarse.faces)} faces, "
            f"{error.mean():.2f} mm off in the mean and at most {error.max():.1f} mm; "
            f"{seconds:.1f} s, {file.stat().st_size / 1024:.1f} KiB\n"
            f"  vertices of each joint: {np.bincount(joints, minlength=24)}"
        )
    for old in set(args.out.glob("*.npz")) - written:
        old.unlink()


if __name__ == "__main__":
    main()
