"""The `genhmr data` command: which datasets are known, building them, and pose corpora from built
ones."""

import argparse
import sys
from typing import Any

from genhmr_jax.io.paths import path_flag


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them to the parser of the command. No heavy import: --help is instant."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    known = actions.add_parser(
        "list", help="the known datasets; of NAME: what to download, and where to put it"
    )
    known.add_argument("names", nargs="*", metavar="NAME")

    build = actions.add_parser(
        "build",
        help="build datasets from their official releases (array_record, for fast random access)",
    )
    build.add_argument("names", nargs="+", metavar="NAME", help="as `genhmr data list` shows them")
    add = build.add_argument
    releases = "where the official releases lie"
    add("--manual-dir", required=True, type=path_flag, metavar="DIR", help=releases)
    add("--data-dir", required=True, type=path_flag, metavar="DIR", help="where built datasets go")
    build.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="SPLIT",
        help="may be repeated (default: all that are there)",
    )
    build.add_argument(
        "--skip-bad",
        action="store_true",
        help="list bad records and go on, instead of stopping at the first",
    )
    build.add_argument("--overwrite", action="store_true", help="build again what is built already")

    poses = actions.add_parser(
        "poses", help="write the pose corpus that training reads, from built pose datasets"
    )
    built = "where the built datasets are"
    poses.add_argument("--data-dir", required=True, type=path_flag, metavar="DIR", help=built)
    poses.add_argument(
        "--source",
        required=True,
        metavar="NAME[=WEIGHT],...",
        help="such as amass,moyo or cmu_asf=0.7,aist=0.3",
    )
    corpus = "the corpus, for --config.data.poses=FILE.npz"
    poses.add_argument("--out", required=True, type=path_flag, metavar="FILE.npz", help=corpus)


def run(args: argparse.Namespace) -> int:
    """Runs an action.

    Raises:
      InputError: bad input; the command shows it as one line.
    """
    return {"list": _list, "build": _build, "poses": _poses}[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from genhmr_jax.data.sources import SOURCES, find

    for name in args.names:
        source = find(name)
        print(
            f"{source.name}\n\n{source.layout}\n\nsplits: {', '.join(source.splits)}\nlicence: {source.licence}"
        )
        print(f"cite: {source.citation}\n" if source.citation else "")
    if not args.names:
        width = max(map(len, SOURCES))
        for source in SOURCES.values():
            print(
                f"{source.name:{width}}  {source.kind:6}  {', '.join(source.splits):23}  {source.citation}"
            )
    return 0


def _build(args: argparse.Namespace) -> int:
    from genhmr_jax.data.sources import find

    for source in [find(name) for name in args.names]:  # all names are checked first
        _build_source(source, args)
    return 0


def _build_source(source: Any, args: argparse.Namespace) -> None:
    """The splits that were asked for; without any, those whose files are there, and at least
    one."""
    from genhmr_jax.data.builders import build
    from genhmr_jax.data.sources import MissingError

    missing = []
    for split in args.split or source.splits:
        try:
            count, report = build(
                source.name,
                args.manual_dir,
                args.data_dir,
                split,
                skip_bad=args.skip_bad,
                overwrite=args.overwrite,
            )
        except MissingError as error:
            if args.split:
                raise
            missing.append(error)
            continue
        print(f"{source.name} {split}: {count} records in {args.data_dir}")
        if report.listed:
            print(report.summary())
    if len(missing) == len(source.splits):
        raise missing[0]
    for error in missing:
        print(f"not built: {' '.join(str(error).split())}", file=sys.stderr)


def _poses(args: argparse.Namespace) -> int:
    from genhmr_jax.data.corpus import parse_weights, write_corpus

    print(write_corpus(args.data_dir, parse_weights(args.source), args.out))
    return 0
