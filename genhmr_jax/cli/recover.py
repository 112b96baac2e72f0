"""`genhmr recover` and `genhmr demo`. JAX is imported only when they run."""

import argparse
import pathlib

import genhmr_jax
from genhmr_jax.cli.evaluate import model_kind
from genhmr_jax.cli.flag_types import mesh_formats, number, point
from genhmr_jax.core.choices import CONTEXTS
from genhmr_jax.io.paths import path_flag, photo_path

SAMPLE_PHOTO = pathlib.Path(genhmr_jax.__file__).parent / "assets" / "sample" / "person.jpg"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `genhmr recover`."""
    add, photos = parser.add_argument, "photos, or directories of photos"
    add("images", nargs="+", type=photo_path, metavar="IMAGE_OR_DIR", help=photos)
    made = "folder for the results; made if missing"
    add("--out", required=True, type=path_flag, metavar="DIR", help=made)
    boxes = (
        "person boxes to use instead of the detector's: a JSON file, a folder of such files, or "
        "X0,Y0,X1,Y1 in px (docs/annotations.md)"
    )
    add("--boxes", type=path_flag, metavar="JSON", help=boxes)
    keypoints = (
        "2D keypoints to use instead of the detector's: a JSON file of OpenPose, COCO, AlphaPose, "
        "MMPose, ..., or a folder of them"
    )
    add("--keypoints", type=path_flag, metavar="JSON", help=keypoints)
    least = "leave out given people whose score is lower (default: %(default)s)"
    add("--min-score", type=number(float, 0, 1), default=0.2, metavar="S", help=least)
    _add_model_flags(parser)


def add_demo_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `genhmr demo`."""
    results = "folder for the results (default: %(default)s)"
    add = parser.add_argument
    add("--out", default="genhmr_demo", type=path_flag, metavar="DIR", help=results)
    parser.set_defaults(images=[str(SAMPLE_PHOTO)], boxes=None, keypoints=None, min_score=0.0)
    _add_model_flags(parser)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with code 2 if flags contradict each other."""
    if args.temperature == 0 and args.hypotheses > 1:
        reason = "at temperature 0 all hypotheses are equal"
        parser.error(f"--hypotheses above 1 needs --temperature above 0: {reason}")


def run(args: argparse.Namespace) -> int:
    """Recover the people of the photos; see recover.command.run."""
    from genhmr_jax.recover import command

    return command.run(args)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that both commands share."""
    add = parser.add_argument
    # 1. The body and the model.
    bodies = "neutral, male, female, lite, or your SMPL .pkl or .npz (default: neutral)"
    add("--body", default="neutral", type=path_flag, help=bodies)
    trained = "a trained model (default: the one that comes with the package)"
    add("--checkpoint", type=path_flag, metavar="DIR", help=trained)
    kind = "required kind of the checkpoint, such as genhmr (default: any)"
    add("--model", type=model_kind, metavar="KIND", help=kind)
    # 2. Sampling and refinement.
    iterations = "sampling iterations (default: those of the model)"
    add("--iterations", type=number(int, 1, 100), metavar="N", help=iterations)
    temperature = "randomness of sampling; 0: none (default: 0, or 1 with --hypotheses)"
    add("--temperature", type=number(float, 0, 100), metavar="T", help=temperature)
    sampled = "bodies sampled per person (default: 1)"
    add("--hypotheses", type=number(int, 1, 64), default=1, metavar="K", help=sampled)
    steps = "2D refinement steps; 0: none (default: the model's)"
    add("--refine-steps", type=number(int, 0, 10_000), metavar="N", help=steps)
    seed = "random seed (default: 0)"
    add("--seed", type=number(int, 0, 2**31 - 1), default=0, metavar="N", help=seed)
    used = "condition the model on all inputs, on the image only, or on the keypoints only"
    add("--context", choices=CONTEXTS, default="all", help=used)
    # 3. The camera.
    view = parser.add_mutually_exclusive_group()
    focal = "focal length, px (default: a guess from the image size)"
    view.add_argument("--focal", type=number(float, 1, 1e6), metavar="PX", help=focal)
    fov = "field of view over the longer side, degrees"
    view.add_argument("--fov", type=number(float, 1, 170), metavar="DEG", help=fov)
    known = "known focal length and principal point of each photo (docs/annotations.md)"
    view.add_argument("--cameras", type=path_flag, metavar="JSON", help=known)
    axis = "intersection of the optical axis with the photo, px (default: middle)"
    add("--principal-point", type=point, metavar="X,Y", help=axis)
    # 4. People and results.
    most = "limit of people per photo (default: 10 detected people, all given people)"
    add("--max-people", type=number(int, 1, 1000), metavar="N", help=most)
    meshes = "meshes to write as well: obj,glb,ply"
    add("--save", type=mesh_formats, default=(), metavar="FORMATS", help=meshes)
    add("--no-overlay", action="store_true", help="write no overlay picture")
    steps = "write a picture of the steps of sampling, STEM_trace.png (models of several steps)"
    add("--trace", action="store_true", help=steps)
