"""The `genhmr` command. Here are only the flags; the work is imported when it is needed: help is
instant."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import genhmr_jax
from genhmr_jax.cli import aot as aot
from genhmr_jax.cli import convert as convert
from genhmr_jax.cli import data as data
from genhmr_jax.cli import evaluate as evaluate
from genhmr_jax.evaluate.sweep import flags as sweep_flags
from genhmr_jax.io import terminal
from genhmr_jax.io.atomic import disk_error
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import FlagError, path_flag, photo_path

MESH_FORMATS = ("obj", "glb", "ply")
SAMPLE_PHOTO = Path(genhmr_jax.__file__).parent / "assets" / "sample" / "person.jpg"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command. Returns the exit code: 0 all well, 1 bad input (one line each on stderr), 2
    wrong usage, 130 interrupted."""
    terminal.prepare()
    parser = build_parser()
    try:
        args, rest = parser.parse_known_args(argv)
    except FlagError as error:
        terminal.complain(str(error))
        return 1
    overrides = [text for text in rest if args.command == "aot" and text.startswith("--config.")]
    if unknown := [text for text in rest if text not in overrides]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    photos = args.command in ("recover", "demo")
    if photos and args.temperature == 0 and args.hypotheses > 1:
        parser.error(
            "--hypotheses above 1 needs --temperature above 0: without chance all hypotheses are equal"
        )
    try:
        if photos:
            from genhmr_jax.recover import command

            return command.run(args)
        if args.command == "sweep":
            from genhmr_jax.evaluate.sweep import command as sweep_command

            return sweep_command.run(args)
        args.overrides = overrides
        return {"aot": aot, "convert": convert, "data": data, "eval": evaluate}[args.command].run(
            args
        )
    except InputError as error:
        terminal.complain(error)
        return 1
    except BrokenPipeError:  # nobody reads on: `genhmr data list | head`
        terminal.silence(sys.stdout)
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        where = getattr(args, "out", None) or getattr(args, "data_dir", None) or args.command
        found = disk_error(error, where)
        if found is None or os.environ.get("GENHMR_DEBUG"):
            raise
        terminal.complain(found)
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The flags of all commands."""
    parser = argparse.ArgumentParser(
        prog="genhmr", description="Generative human mesh recovery: photos in, 3D body meshes out."
    )
    parser.add_argument("--version", action="version", version=f"genhmr {genhmr_jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    recover = commands.add_parser(
        "recover",
        help="recover the people in photos",
        description="Writes STEM.npz and STEM_overlay.png for every photo. A photo that fails does not stop the others.",
    )
    add, photos = recover.add_argument, "photos, or directories of photos"
    add("images", nargs="+", type=photo_path, metavar="IMAGE_OR_DIR", help=photos)
    made = "where the results go; made if missing"
    add("--out", required=True, type=path_flag, metavar="DIR", help=made)
    boxes = "person boxes to use instead of the detector's: a JSON file, a folder of such files, or X0,Y0,X1,Y1 in px (docs/annotations.md)"
    recover.add_argument("--boxes", type=path_flag, metavar="JSON", help=boxes)
    keypoints = "2D keypoints to use instead of the detector's: a JSON file of OpenPose, COCO, AlphaPose, MMPose, ..., or a folder of them"
    recover.add_argument("--keypoints", type=path_flag, metavar="JSON", help=keypoints)
    least = "leave out given people whose score is lower (default: %(default)s)"
    recover.add_argument(
        "--min-score", type=number(float, 0, 1), default=0.2, metavar="S", help=least
    )
    _add_model_flags(recover)

    demo = commands.add_parser(
        "demo",
        help="run on the photo that comes with the package",
        description="Runs on the sample photo.",
    )
    results = "where the results go (default: %(default)s)"
    demo.add_argument("--out", default="genhmr_demo", type=path_flag, metavar="DIR", help=results)
    demo.set_defaults(images=[str(SAMPLE_PHOTO)], boxes=None, keypoints=None, min_score=0.0)
    _add_model_flags(demo)

    sweep = commands.add_parser(
        "sweep",
        help="run an ablation sweep, or write its jobs for a cluster",
        description="Trains and evaluates the points of a sweep (configs/sweeps/), and writes one table and one plot. What is done is "
        "not done again; what was stopped goes on.",
    )
    sweep_flags.add_flags(sweep)
    ahead = commands.add_parser(
        "aot",
        help="compile a training for a TPU slice that is not here",
        description="Compiles the step of a config for a TPU slice and prints its memory, FLOPs, communication and predicted time. "
        "--config.FIELD=VALUE overrides fields.",
    )
    aot.add_flags(ahead)
    datasets = commands.add_parser(
        "data",
        help="list, build and mix datasets",
        description="Lists the datasets that are known, builds them from their official releases, and writes pose corpora (docs/data.md).",
    )
    data.add_flags(datasets)
    foreign = commands.add_parser(
        "convert",
        help="make a model of a PyTorch checkpoint",
        description="Reads ViTPose, HMR2.0 and TokenHMR checkpoints as they were published, without PyTorch (docs/pretrained.md).",
    )
    convert.add_flags(foreign)
    measured = commands.add_parser(
        "eval",
        help="measure a model on a test set",
        description="Measures a model under published protocols, with and without refinement, prints a table beside the published rows, "
        "and writes all figures to a JSON file.",
    )
    evaluate.add_flags(measured)
    return parser


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `recover` and `demo` share."""
    bodies = "neutral, male, female, lite, or your SMPL .pkl or .npz (default: neutral)"
    parser.add_argument("--body", default="neutral", type=path_flag, help=bodies)
    trained = "a trained model (default: the one that comes with the package)"
    parser.add_argument("--checkpoint", type=path_flag, metavar="DIR", help=trained)
    kind = "what the checkpoint must be, such as genhmr (default: whatever it is)"
    parser.add_argument("--model", type=evaluate.model_kind, metavar="KIND", help=kind)
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
        choices=evaluate.CONTEXTS,
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


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """An argparse type: an int or float within [low, high] (NaN is outside)."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"must be {what} from {low:.10g} to {high:.10g}, not {text!r}"
            )
        return value

    return parse


def point(text: str) -> tuple[float, float]:
    """An argparse type: X,Y in px."""
    parse = number(float, -1e6, 1e6)
    parts = text.split(",")
    if len(parts) != 2:
        raise argparse.ArgumentTypeError(f"must be two numbers X,Y, not {text!r}")
    return parse(parts[0]), parse(parts[1])


def mesh_formats(text: str) -> tuple[str, ...]:
    """An argparse type: a comma-separated choice of MESH_FORMATS."""
    formats = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    if unknown := [part for part in formats if part not in MESH_FORMATS]:
        raise argparse.ArgumentTypeError(
            f"knows {','.join(MESH_FORMATS)}, not {','.join(unknown)!r}"
        )
    return formats


if __name__ == "__main__":
    sys.exit(main())
