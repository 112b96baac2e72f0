"""`genhmr serve`: checks what is installed, loads the model, and serves."""

import argparse
import importlib.util

from genhmr_jax.io.diagnosis import EXTRAS
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.images import read_photo
from genhmr_jax.io.memory import share_arena
from genhmr_jax.recover import command


def run(args: argparse.Namespace) -> int:
    """Serve until a signal; see serving.serve.

    Raises:
      InputError: a package of the extra is missing, or the model or the address is at fault.
    """
    check_installed()
    share_arena()
    from genhmr_jax.recover.server import serving
    from genhmr_jax.recover.server.settings import Limits

    limits = Limits(args.max_bytes, args.max_pixels, args.max_people, args.queue, args.timeout)
    recoverer, options = command.load(args)
    hosts = tuple(args.allow_host)
    first = read_photo(args.first)
    return serving.serve(recoverer, options, limits, args.host, args.port, hosts, first)


def check_installed() -> None:
    """Raise InputError if a package of the extra is missing."""
    packages, _ = EXTRAS["server"]
    missing = [
        name for name, module in packages.items() if importlib.util.find_spec(module) is None
    ]
    if missing:
        problem, verb = ", ".join(missing), "is" if len(missing) == 1 else "are"
        remedy = 'pip install "genhmr_jax[server]"'
        raise InputError("genhmr serve", f"{problem} {verb} not installed", remedy)
