"""`genhmr recover` and `genhmr demo`. JAX is imported only when they run."""

import argparse
import pathlib

import genhmr_jax
from genhmr_jax.cli.flag_types import formats, model_kind, number, point
from genhmr_jax.core.choices import CONTEXTS
from genhmr_jax.io.paths import path_flag, photo_path
from genhmr_jax.render import MESH_FORMATS
from genhmr_jax.render.export import CLIP_FORMATS

NO_CLIP = {
    "fps": None, "start": None, "end": None, "every": 1, "height": None, "world": False,
    "resume": False,
}  # fmt: skip
"""Defaults of the flags of clips, for a command without them."""
SAMPLE_PHOTO = pathlib.Path(genhmr_jax.__file__).parent / "assets" / "sample" / "person.jpg"


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `genhmr recover`."""
    add, photos = parser.add_argument, "photos, directories of photos, or videos"
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
    masks = (
        "folder of masks of the people who are meant: NAME.png with a label for each person, or "
        "NAME_1.png, NAME_2.png, ...; for a clip one such map for each frame (docs/annotations.md)"
    )
    add("--masks", type=path_flag, metavar="DIR", help=masks)
    least = "leave out given people whose score is lower (default: %(default)s)"
    add("--min-score", type=number(float, 0, 1), default=0.2, metavar="S", help=least)
    _add_clip_flags(parser)
    _add_model_flags(parser)


def add_demo_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `genhmr demo`."""
    results = "folder for the results (default: %(default)s)"
    add = parser.add_argument
    add("--out", default="genhmr_demo", type=path_flag, metavar="DIR", help=results)
    parser.set_defaults(images=[str(SAMPLE_PHOTO)], boxes=None, keypoints=None, min_score=0.0)
    parser.set_defaults(masks=None)
    parser.set_defaults(clip=False, **NO_CLIP)
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


def _add_clip_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of clips (docs/video.md)."""
    group = parser.add_argument_group("clips")
    add, parser_of_seconds = group.add_argument, number(float, 0, 1e6)
    folders = "each directory holds the frames of one clip"
    add("--clip", action="store_true", help=folders)
    rate = "frames a second of such a directory (default: 30)"
    add("--fps", type=number(float, 0.01, 1000), metavar="FPS", help=rate)
    add("--start", type=parser_of_seconds, metavar="S", help="first second of the clip to read")
    add("--end", type=parser_of_seconds, metavar="S", help="second before which to stop")
    every = "read every n-th frame (default: %(default)s)"
    add("--every", type=number(int, 1, 10_000), default=1, metavar="N", help=every)
    height = "height of the people, metres; it determines the scale (default: estimated)"
    add("--height", type=number(float, 0.5, 2.6), metavar="M", help=height)
    world = "write --save files in world coordinates: y up, the ground at y = 0"
    add("--world", action="store_true", help=world)
    add("--resume", action="store_true", help="go on with an interrupted clip")


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
    focal = "focal length, px (default: EXIF's, or a guess from the image size)"
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
    clip_files = ",".join(CLIP_FORMATS)
    files = f"files to write as well: {','.join(MESH_FORMATS)} of photos, {clip_files} of clips"
    add(
        "--save",
        type=formats((*MESH_FORMATS, *CLIP_FORMATS)),
        default=(),
        metavar="FORMATS",
        help=files,
    )
    fingers = "find the hands at the wrists, and pose the fingers (neutral, or your SMPL-H file)"
    add("--hands", action="store_true", help=fingers)
    page = "write a page that shows the result, STEM_page.html; it needs no network"
    add("--page", action="store_true", help=page)
    add("--no-overlay", action="store_true", help="write no overlay picture")
    steps = "write a picture of the steps of sampling, STEM_trace.png (models of several steps)"
    add("--trace", action="store_true", help=steps)
