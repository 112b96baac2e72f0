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
    """The flags of `genhmr recover`."""
    add, photos = parser.add_argument, "photos, or directories of photos"
    add("images", nargs="+", type=photo_path, metavar="IMAGE_OR_DIR", help=photos)
    made = "where the results go; made if missing"
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
    """The flags of `genhmr demo`."""
    results = "where the results go (default: %(default)s)"
    add = parser.add_argument
    add("--out", default="genhmr_demo", type=path_flag, metavar="DIR", help=results)
    parser.set_defaults(images=[str(SAMPLE_PHOTO)], boxes=None, keypoints=None, min_score=0.0)
    _add_model_flags(parser)


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Ends the program with code 2 where flags contradict each other."""
    if args.temperature == 0 and args.hypotheses > 1:
        parser.error(
            "--hypotheses above 1 needs --temperature above 0: without chance all hypotheses are "
            "equal"
        )


def run(args: argparse.Namespace) -> int:
    """Recovers the people of the photos; see recover.command.run."""
    from genhmr_jax.recover import command

    return command.run(args)


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that both commands have."""
    bodies = "neutral, male, female, lite, or your SMPL .pkl or .npz (default: neutral)"
    parser.add_argument("--body", default="neutral", type=path_flag, help=bodies)
    trained = "a trained model (default: the one that comes with the package)"
    parser.add_argument("--checkpoint", type=path_flag, metavar="DIR", help=trained)
    kind = "what the checkpoint must be, such as genhmr (default: whatever it is)"
    parser.add_argument("--model", type=model_kind, metavar="KIND", help=kind)
    parser.add_argument(
        "--iterations",
        type=number(int, 1, 100),
        metavar="N",
        help="sampling iterations (default: 1; 5 for hypotheses)",
    )
    parser.add_argument(
        "--temperature",
        type=number(float, 0, 100),
        metavar="T",
        help="chance in sampling; 0 is none (default: 0, or 1 with --hypotheses)",
    )
    parser.add_argument(
        "--hypotheses",
        type=number(int, 1, 64),
        default=1,
        metavar="K",
        help="bodies sampled per person (default: 1)",
    )
    parser.add_argument(
        "--refine-steps",
        type=number(int, 0, 10_000),
        metavar="N",
        help="2D refinement steps; 0 is none (default: the model's)",
    )
    view = parser.add_mutually_exclusive_group()
    view.add_argument(
        "--focal",
        type=number(float, 1, 1e6),
        metavar="PX",
        help="focal length, px (default: a guess from the image size)",
    )
    view.add_argument(
        "--fov",
        type=number(float, 1, 170),
        metavar="DEG",
        help="field of view over the longer side, degrees",
    )
    known = "known focal length and principal point of each photo (docs/annotations.md)"
    view.add_argument("--cameras", type=path_flag, metavar="JSON", help=known)
    parser.add_argument(
        "--principal-point",
        type=point,
        metavar="X,Y",
        help="where the optical axis meets the photo, px (default: middle)",
    )
    parser.add_argument(
        "--seed",
        type=number(int, 0, 2**31 - 1),
        default=0,
        metavar="N",
        help="random seed (default: 0)",
    )
    most = "most people per photo (default: 10 whom the detector finds, all who are given)"
    parser.add_argument("--max-people", type=number(int, 1, 1000), metavar="N", help=most)
    parser.add_argument(
        "--context",
        choices=CONTEXTS,
        default="all",
        help="show the model the image or the 2D keypoints alone",
    )
    parser.add_argument(
        "--save",
        type=mesh_formats,
        default=(),
        metavar="FORMATS",
        help="meshes to write as well: obj,glb,ply",
    )
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay picture")
