"""`genhmr hands`. JAX is imported only when it runs."""

import argparse

from genhmr_jax.cli.flag_types import formats, number
from genhmr_jax.io.paths import path_flag, photo_path
from genhmr_jax.render import MESH_FORMATS


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add, photos = parser.add_argument, "photos, or directories of photos"
    add("images", nargs="+", type=photo_path, metavar="IMAGE_OR_DIR", help=photos)
    made = "folder for the results; made if missing"
    add("--out", required=True, type=path_flag, metavar="DIR", help=made)
    # 1. The hand and the model.
    bodies = "free, or your MANO_RIGHT.pkl (default: free); left hands are its mirror image"
    add("--hand", default="free", type=path_flag, help=bodies)
    trained = "a trained model (default: the one that comes with the package)"
    add("--checkpoint", type=path_flag, metavar="DIR", help=trained)
    # 2. Detection.
    most = "limit of hands per photo (default: %(default)s)"
    add("--max-hands", type=number(int, 1, 1000), default=16, metavar="N", help=most)
    own = "your keypoints or boxes of hands in place of the detector's (docs/annotations.md)"
    add("--given", type=path_flag, metavar="JSON", help=own)
    alone = "do not detect people; with them more hands are found, and their sides are known"
    add("--no-people", action="store_true", help=alone)
    # 3. Sampling and refinement.
    iterations = "sampling iterations (default: those of the model)"
    add("--iterations", type=number(int, 1, 100), metavar="N", help=iterations)
    sampled = "meshes sampled per hand (default: 1)"
    add("--hypotheses", type=number(int, 1, 64), default=1, metavar="K", help=sampled)
    steps = "2D refinement steps; 0: none (default: the model's)"
    add("--refine-steps", type=number(int, 0, 10_000), metavar="N", help=steps)
    seed = "random seed (default: 0)"
    add("--seed", type=number(int, 0, 2**31 - 1), default=0, metavar="N", help=seed)
    # 4. The camera and the results.
    view = parser.add_mutually_exclusive_group()
    focal = "focal length, px (default: a guess from the image size)"
    view.add_argument("--focal", type=number(float, 1, 1e6), metavar="PX", help=focal)
    fov = "field of view over the longer side, degrees"
    view.add_argument("--fov", type=number(float, 1, 170), metavar="DEG", help=fov)
    meshes = "meshes to write as well: obj,glb,ply"
    add("--save", type=formats(MESH_FORMATS), default=(), metavar="FORMATS", help=meshes)
    add("--no-overlay", action="store_true", help="write no picture")


def run(args: argparse.Namespace) -> int:
    """Recover the hands of the photos; see recover.hands_command.run."""
    from genhmr_jax.recover import hands_command

    return hands_command.run(args)
