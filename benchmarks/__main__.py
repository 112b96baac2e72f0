"""Every benchmark that this machine can run, in one table.

    python -m benchmarks [--quick] [--only NAME ...] [--out FILE.json] [--doc docs/performance.md]

Run it in the root of the repository on an idle machine. The names of --only are those of --list.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Sequence

from benchmarks import document, groups, machine, table
from benchmarks.settings import Settings
from genhmr_jax.io import compilation_cache


def build_parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Run the benchmarks of this checkout and print one table.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="the shorter ones, fewer repeats: a few minutes")
    add("--only", nargs="+", metavar="NAME", choices=groups.GROUPS, help="these groups alone")
    add("--list", action="store_true", help="print the groups")
    add("--out", type=pathlib.Path, metavar="FILE", help="write everything as JSON")
    doc = "rewrite the table of this Markdown file, between its two markers"
    add("--doc", type=pathlib.Path, metavar="FILE", help=doc)
    saved = "measure nothing: print, or write to --doc, the JSON of an earlier run"
    add("--from", dest="saved", type=pathlib.Path, metavar="FILE", help=saved)
    photos = "photos of the folder benchmark (default: made of the sample photo)"
    add("--photos", type=pathlib.Path, metavar="DIR", help=photos)
    poses = "a pose corpus of `genhmr data poses`: adds the errors of lifting, which takes an hour"
    add("--poses", type=pathlib.Path, metavar="FILE", help=poses)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit code: 1 if a group failed."""
    args = build_parser().parse_args(argv)
    if args.list:
        for name, group in groups.GROUPS.items():
            print(f"{name:12s} {group.title}{'' if group.quick else ' (not with --quick)'}")
        return 0
    if args.saved:
        about, found = table.load(args.saved)
    else:
        about, found = measure(args)
    print(document.about(about))
    print(table.text(named(found)))
    if args.out and not args.saved:
        table.save(args.out, about, found)
    if args.doc:
        document.write(args.doc, about, named(found))
    return int(any(row.note.startswith(groups.FAILED) for rows in found.values() for row in rows))


def named(found: dict[str, list[table.Row]]) -> dict[str, list[table.Row]]:
    """The groups by their titles."""
    return {groups.GROUPS[name].title: rows for name, rows in found.items()}


def measure(args: argparse.Namespace) -> tuple[dict, dict[str, list[table.Row]]]:
    """Run the groups, and write what there is after each of them."""
    names = args.only or [n for n, g in groups.GROUPS.items() if g.quick or not args.quick]
    busy = machine.busy_share()
    if busy is not None and busy > machine.BUSY:
        text = f"other work takes {100 * busy:.0f} % of the processors: times will be too long"
        print(f"benchmarks: {text}", file=sys.stderr)
    # The children of this process need the memory of a GPU too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    found: dict[str, list[table.Row]] = {}
    with tempfile.TemporaryDirectory(prefix="genhmr-benchmarks-") as folder:
        work = pathlib.Path(folder)
        # The programs of a quick run stay in the user's cache, so that the next one is quicker.
        cache = args.quick and compilation_cache.cache_directory() or work / "cache"
        settings = Settings(work, cache, args.quick, args.photos, args.poses)
        os.environ["GENHMR_CACHE"] = str(cache)
        about = machine.describe() | {"busy_before": busy, "quick": args.quick, "seconds": {}}
        for name in names:
            print(f"{time.strftime('%H:%M:%S')} {name} ...", file=sys.stderr, flush=True)
            start = time.monotonic()
            found[name] = groups.collect(name, settings)
            about["seconds"][name] = round(time.monotonic() - start, 1)
            if args.out:
                table.save(args.out, about, found)
    return about, found


if __name__ == "__main__":
    sys.exit(main())
