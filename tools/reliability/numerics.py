"""Gradients at degenerate poses, float32 against float64, and answers of other batches: tables.

python tools/reliability/numerics.py --out runs/numerics

1. degenerate.py: finite outputs and gradients of body, hand, rotations, BioPose's skeleton and the
   objective of the 2D refinement, and what the refinement makes of impossible photos.
2. drift.py: joints of the shipped model after the 2D refinement and after that of a window, in
   float32 against float64, from the same start.
3. drift.py: the same people in batches of other sizes and orders, beside padding, and on several
   host devices.

The command exits with 1 if anything is not finite, a loss rises, or an answer moves by more than
EQUAL where the tokens are equal.
"""

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from degenerate import MODELS, cases, measure, refined_cases

from genhmr_jax.io.atomic import atomic_path

EQUAL = 1e-3  # metres
_DRIFT = [sys.executable, str(pathlib.Path(__file__).with_name("drift.py"))]


def gradients(rows: int) -> tuple[list[dict[str, Any]], bool]:
    """All cases of degenerate.py; whether all are sound."""
    found = []
    print("| model | case | rows | finite values | finite gradients | largest gradient |")
    for case in (case for model in MODELS for case in cases(model, rows)):
        found.append(measure(case))
        print("|", " | ".join(map(_text, dataclasses.astuple(found[-1]))), "|", flush=True)
    print("\n| refinement of | rows | finite | rising losses | median gain |")
    for case in refined_cases(rows):
        found.append(case)
        print("|", " | ".join(map(_text, dataclasses.astuple(case))), "|", flush=True)
    return [dataclasses.asdict(case) for case in found], all(case.sound for case in found)


def precision(rows: int, out: pathlib.Path) -> tuple[dict[str, Any], bool]:
    """Differences between float32 and float64, metres."""
    single, double = out / "float32.npz", out / "float64.npz"
    command = [*_DRIFT, "refine", f"--rows={rows}"]
    subprocess.run([*command, "--bits=32", f"--out={single}"], check=True)
    latents = f"--latents={single}"
    subprocess.run([*command, "--bits=64", latents, f"--out={double}"], check=True)
    one, two, found = np.load(single), np.load(double), {}
    print("\n| joints | mean, mm | median of people's largest, mm | largest, mm |")
    for key, name in (("before", "start"), ("after", "refined"), ("motion", "window")):
        gap = np.linalg.norm(one[key] - two[key], axis=-1)
        found[name] = {
            "mean": float(gap.mean()),
            "median": float(np.median(gap.max(-1))),
            "largest": float(gap.max()),
        }
        print("|", " | ".join([name, *(f"{1e3 * v:.5f}" for v in found[name].values())]), "|")
    return found, all(values["largest"] < EQUAL for values in found.values())


def other_batches(
    rows: int, sizes: Sequence[int], out: pathlib.Path
) -> tuple[dict[str, Any], bool]:
    """Differences of answers from those of one batch, metres, and rows with other tokens."""
    file, found = out / "batches.npz", {}
    each = ["--sizes", *map(str, sizes)]
    command = [*_DRIFT, "batches", f"--rows={rows}", f"--out={file}", *each]
    subprocess.run(command, check=True)
    answers = np.load(file)
    joints, tokens = answers["joints all"], answers["tokens all"]
    print("\n| way | rows | rows with other tokens | median, mm | largest, mm |")
    for key in (key for key in answers.files if key.startswith("joints ") and key != "joints all"):
        name = key.removeprefix("joints ")
        count = rows - 3 if name.startswith("padding") else len(answers[key])
        gap = np.linalg.norm(answers[key][:count] - joints[:count], axis=-1).max(-1)
        other = (answers[f"tokens {name}"][:count] != tokens[:count]).any(1)
        found[name] = {
            "rows": count,
            "other tokens": int(other.sum()),
            "median": float(np.median(gap)),
            "largest": float(gap.max()),
        }
        row = (name, count, int(other.sum()), *(f"{1e3 * f(gap):.5f}" for f in (np.median, np.max)))
        print("|", " | ".join(map(str, row)), "|")
    return found, all(v["largest"] < EQUAL for v in found.values() if not v["other tokens"])


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all parts, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--rows", type=int, default=64, help="of each case of random inputs")
    parser.add_argument("--people", type=int, default=32, help="of the shipped model")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parts = ("gradients", "precision", "batches")
    parser.add_argument("--part", choices=parts, action="append", help="default: all")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    run = {
        "gradients": lambda: gradients(args.rows),
        "precision": lambda: precision(args.people, args.out),
        "batches": lambda: other_batches(args.people, args.sizes, args.out),
    }
    report, sound = {}, True
    for part in args.part or parts:
        report[part], good = run[part]()
        sound &= good
    with atomic_path(args.out / "numerics.json") as file:
        file.write_text(json.dumps(report, indent=1))
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
