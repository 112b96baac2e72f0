"""`genhmr serve`. JAX and FastAPI are imported only when it runs."""

import argparse

from genhmr_jax.cli.flag_types import model_kind, number
from genhmr_jax.cli.recover import SAMPLE_PHOTO
from genhmr_jax.io.paths import path_flag
from genhmr_jax.recover.server.settings import Limits


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    add = parser.add_argument
    # 1. The address.
    address = "address to listen on (default: %(default)s, this machine only)"
    add("--host", default="127.0.0.1", metavar="ADDRESS", help=address)
    port = "port; 0: any free one (default: %(default)s)"
    add("--port", type=number(int, 0, 65535), default=8000, metavar="N", help=port)
    names = "a further name in the Host header that is served, such as that of a proxy"
    add("--allow-host", action="append", default=[], metavar="NAME", help=names)
    # 2. Limits.
    default = Limits()
    size, kind = "bytes of a photo's file (default: %(default)s)", number(int, 1000, 2**30)
    add("--max-bytes", type=kind, default=default.max_bytes, metavar="N", help=size)
    pixels, kind = "width x height of a photo (default: %(default)s)", number(int, 256, 150_000_000)
    add("--max-pixels", type=kind, default=default.max_pixels, metavar="N", help=pixels)
    people, kind = "people of a photo (default: %(default)s)", number(int, 1, 1000)
    add("--max-people", type=kind, default=default.max_people, metavar="N", help=people)
    waiting, kind = "photos that wait for the model (default: %(default)s)", number(int, 1, 10_000)
    add("--queue", type=kind, default=default.queue, metavar="N", help=waiting)
    seconds = "seconds from the start of a request to its answer (default: %(default)g)"
    kind = number(float, 0.1, 3600)
    add("--timeout", type=kind, default=default.timeout, metavar="S", help=seconds)
    # 3. The model. All photos have the default options of `genhmr recover`.
    bodies = "neutral, male, female, lite, or your SMPL .pkl or .npz (default: neutral)"
    add("--body", default="neutral", type=path_flag, help=bodies)
    trained = "a trained model (default: the one that comes with the package)"
    add("--checkpoint", type=path_flag, metavar="DIR", help=trained)
    kind = "required kind of the checkpoint, such as genhmr (default: any)"
    add("--model", type=model_kind, metavar="KIND", help=kind)
    parser.set_defaults(
        first=SAMPLE_PHOTO, iterations=None, temperature=None, hypotheses=1, refine_steps=None,
        seed=0, context="all", focal=None, fov=None, principal_point=None, hands=False, trace=False,
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; see recover.server.command.run."""
    from genhmr_jax.recover.server import command

    return command.run(args)
