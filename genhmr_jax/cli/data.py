"""The `genhmr data` command: list datasets, build them, and write pose corpora."""

import argparse
import sys
from typing import Any

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import path_flag


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of all actions. No heavy import, so that --help is fast."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    about = "list the known datasets; for a NAME: what to download, and where to put it"
    known = actions.add_parser("list", help=about)
    known.add_argument("names", nargs="*", metavar="NAME")

    about = "build datasets from their official releases (array_record, for fast random access)"
    build = actions.add_parser("build", help=about)
    add = build.add_argument
    add("names", nargs="+", metavar="NAME", help="names as in `genhmr data list`")
    folder = {"required": True, "type": path_flag, "metavar": "DIR"}
    add("--manual-dir", **folder, help="folder of the official releases")
    add("--data-dir", **folder, help="folder for the built datasets")
    splits = "may be repeated (default: all that exist)"
    add("--split", action="append", default=[], metavar="SPLIT", help=splits)
    skip = "list bad records and continue, instead of stopping at the first one"
    add("--skip-bad", action="store_true", help=skip)
    add("--overwrite", action="store_true", help="build datasets again that exist already")

    about = "write the pose corpus for training from built pose datasets"
    add = actions.add_parser("poses", help=about).add_argument
    add("--data-dir", **folder, help="folder of the built datasets")
    source = "such as amass,moyo or cmu_asf=0.7,aist=0.3"
    add("--source", required=True, metavar="NAME[=WEIGHT],...", help=source)
    corpus = "the corpus, for --config.data.poses=FILE.npz"
    add("--out", required=True, type=path_flag, metavar="FILE.npz", help=corpus)

    about = "write a corpus of hand poses for training, from the procedural prior"
    add = actions.add_parser("hand-poses", help=about).add_argument
    add("--out", required=True, type=path_flag, metavar="FILE.npz", help=corpus)
    add("--count", type=int, default=40_000, metavar="N", help="training poses (default: 40000)")
    hand = "the path of MANO_RIGHT.pkl (default: the free hand)"
    add("--hand", default="free", type=path_flag, metavar="FILE", help=hand)
    add("--seed", type=int, default=0, metavar="N", help="of the poses (default: 0)")

    about = "write joint angles of the motions of a pose corpus, to train NeurIK"
    add = actions.add_parser("angles", help=about).add_argument
    motions = "pose corpus with frame numbers, of `genhmr data poses`"
    add("--poses", required=True, type=path_flag, metavar="FILE.npz", help=motions)
    labels = "the angles, for --config.data.angles=FILE.npz"
    add("--out", required=True, type=path_flag, metavar="FILE.npz", help=labels)
    copies = "of each training motion, with other shapes and turned joints (default: 3)"
    add("--copies", type=int, default=3, metavar="N", help=copies)
    add("--seed", type=int, default=0, metavar="N", help="of shapes and copies (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Run an action.

    Raises:
      InputError: bad input; the command shows it as one line.
    """
    actions = {
        "list": _list, "build": _build, "poses": _poses, "hand-poses": _hand_poses,
        "angles": _angles,
    }  # fmt: skip
    return actions[args.action](args)


def _list(args: argparse.Namespace) -> int:
    from genhmr_jax.data.hands.releases import RELEASES
    from genhmr_jax.data.sources import SOURCES, find

    for name in args.names:
        source = RELEASES[name] if name in RELEASES else find(name)
        print(f"{source.name}\n\n{source.layout}\n\nsplits: {', '.join(source.splits)}")
        print(f"licence: {source.licence}")
        print(f"cite: {source.citation}\n" if source.citation else "")
    if not args.names:
        width = max(map(len, SOURCES))
        for source in (*SOURCES.values(), *RELEASES.values()):
            few = len(source.splits) <= 8
            splits = ", ".join(source.splits if few else (*source.splits[:2], "..."))
            print(f"{source.name:{width}}  {source.kind:6}  {splits:23}  {source.citation}")
    return 0


def _build(args: argparse.Namespace) -> int:
    from genhmr_jax.data.hands.releases import RELEASES
    from genhmr_jax.data.sources import find

    if hands := [name for name in args.names if name in RELEASES]:
        problem = "is a dataset of hands, which is not built"
        raise InputError(hands[0], problem, "read its release directly: docs/data.md, Hands")
    for source in [find(name) for name in args.names]:  # checks all names first
        _build_source(source, args)
    return 0


def _build_source(source: Any, args: argparse.Namespace) -> None:
    """Build the given splits; by default all splits whose files exist, but at least one."""
    from genhmr_jax.data.builders import build
    from genhmr_jax.data.sources import MissingError

    missing = []
    for split in args.split or source.splits:
        options = {"skip_bad": args.skip_bad, "overwrite": args.overwrite}
        try:
            count, report = build(source.name, args.manual_dir, args.data_dir, split, **options)
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


def _hand_poses(args: argparse.Namespace) -> int:
    from genhmr_jax.data.hands.corpus import write_hand_corpus

    print(write_hand_corpus(args.out, args.count, args.hand, args.seed))
    return 0


def _angles(args: argparse.Namespace) -> int:
    from genhmr_jax.systems.biopose.labels import write_labels

    print(write_labels(args.poses, args.out, args.copies, args.seed))
    return 0
