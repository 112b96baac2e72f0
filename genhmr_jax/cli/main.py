"""The `genhmr` command: its subcommands, and the exit codes of their errors."""

import argparse
import os
import sys
from collections.abc import Sequence

import genhmr_jax
from genhmr_jax.cli import (
    angles,
    aot,
    convert,
    data,
    doctor,
    evaluate,
    fit,
    hands,
    recover,
    serve,
    sweep,
    view,
)
from genhmr_jax.cli.recover import SAMPLE_PHOTO as SAMPLE_PHOTO
from genhmr_jax.io import terminal
from genhmr_jax.io.atomic import disk_error
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import FlagError

COMMANDS = {
    "recover": recover,
    "demo": recover,
    "hands": hands,
    "view": view,
    "serve": serve,
    "angles": angles,
    "sweep": sweep,
    "aot": aot,
    "data": data,
    "convert": convert,
    "fit": fit,
    "eval": evaluate,
    "doctor": doctor,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
      the exit code: 0 success, 1 bad input (one line each on stderr), 2 wrong usage, 130
      interrupted.
    """
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
    if args.command == "aot":
        args.overrides = overrides
    command = COMMANDS[args.command]
    if command is recover:
        recover.check(parser, args)
    try:
        return command.run(args)
    except InputError as error:
        terminal.complain(error)
        return 1
    except BrokenPipeError:  # the reader has closed the pipe: `genhmr data list | head`
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
    about = "Generative human mesh recovery: photos and clips in, 3D body meshes out."
    parser = argparse.ArgumentParser(prog="genhmr", description=about)
    parser.add_argument("--version", action="version", version=f"genhmr {genhmr_jax.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, help: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=description)

    recover.add_flags(
        add(
            "recover",
            "recover the people in photos and clips",
            "Writes STEM.npz and STEM_overlay.png for every photo, and STEM.npz and "
            "STEM_overlay.mp4 for every video. One that fails does not stop the others.",
        )
    )
    recover.add_demo_flags(
        add("demo", "run on the photo that comes with the package", "Runs on the sample photo.")
    )
    hands.add_flags(
        add(
            "hands",
            "recover the hands in photos",
            "Writes STEM_hands.npz and STEM_hands_overlay.png for every photo. A photo that fails "
            "does not stop the others.",
        )
    )
    view.add_flags(
        add(
            "view",
            "write a page that shows a result",
            "Writes one HTML file that shows the result of a photo or a clip in 3D. It opens in a "
            "browser without a network.",
        )
    )
    serve.add_flags(
        add(
            "serve",
            "serve photos over HTTP",
            "Recovers the people of photos that are sent over HTTP, and serves a page that sends "
            "them (docs/server.md). It listens on this machine only unless --host is given.",
        )
    )
    angles.add_flags(
        add(
            "angles",
            "joint angles of the people of a clip, for OpenSim",
            "Writes STEM_N.mot, .trc and .osim, tables and a plot of joint angles for every person "
            "of a clip (docs/biomechanics.md).",
        )
    )
    sweep.add_flags(
        add(
            "sweep",
            "run an ablation sweep, or write its jobs for a cluster",
            "Trains and evaluates the points of a sweep (configs/sweeps/), and writes one table "
            "and one plot. A point that is done is not run again; one that was stopped continues.",
        )
    )
    aot.add_flags(
        add(
            "aot",
            "compile a training for an absent TPU slice",
            "Compiles the step of a config for a TPU slice and prints its memory, FLOPs, "
            "communication and predicted time. --config.FIELD=VALUE overrides fields.",
        )
    )
    data.add_flags(
        add(
            "data",
            "list, build and mix datasets",
            "Lists the known datasets, builds them from their official releases, and writes pose "
            "corpora (docs/data.md).",
        )
    )
    convert.add_flags(
        add(
            "convert",
            "make a model from a PyTorch checkpoint",
            "Reads ViTPose, HMR2.0 and TokenHMR checkpoints as they were published, without "
            "PyTorch (docs/pretrained.md).",
        )
    )
    fit.add_flags(
        add(
            "fit",
            "find pose and shape of a mesh",
            "Finds the pose, the shape and the translation of a body from the vertices of its mesh "
            "(OBJ or PLY), and writes them to an .npz file. A mesh that fails does not stop the "
            "others.",
        )
    )
    evaluate.add_flags(
        add(
            "eval",
            "measure a model on a test set",
            "Measures a model under published protocols, with and without refinement, prints a "
            "table beside the published rows, and writes all figures to a JSON file.",
        )
    )
    doctor.add_flags(
        add(
            "doctor",
            "check the installation",
            "Prints the versions of packages, the devices, the caches, the shipped files and the "
            "optional packages. The exit code is 1 if something is wrong.",
        )
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
