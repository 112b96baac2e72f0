"""`genhmr doctor`: what is installed, and what is wrong with it."""

import argparse
import dataclasses
import json


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command."""
    parser.add_argument("--json", action="store_true", help="print JSON, for other programs")


def run(args: argparse.Namespace) -> int:
    """Print the diagnosis; 1 if something is wrong."""
    from genhmr_jax.io import diagnosis

    found = diagnosis.diagnose()
    if args.json:
        print(json.dumps({"well": not found.problems, **dataclasses.asdict(found)}, indent=2))
    else:
        print(found.text())
    return 1 if found.problems else 0
