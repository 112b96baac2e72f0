"""`genhmr view`. JAX is imported only when it runs."""

import argparse

from genhmr_jax.io.paths import path_flag


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    result = "STEM.npz of `genhmr recover`, of a photo or a clip"
    add("result", type=path_flag, metavar="RESULT", help=result)
    source = "the photo, the video, or the directory of frames that was read"
    add("--photo", type=path_flag, metavar="SOURCE", help=source)
    page = "the page (default: RESULT with the suffix _page.html)"
    add("--out", type=path_flag, metavar="HTML", help=page)
    bodies = "the body of the result (default: neutral, or that of the clip)"
    add("--body", type=path_flag, help=bodies)


def run(args: argparse.Namespace) -> int:
    """Write the page; see recover.view_command.run."""
    from genhmr_jax.recover import view_command

    return view_command.run(args)
