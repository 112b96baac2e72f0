"""Recovers thousands of photos, hostile files among them, or one long clip, and checks the results.

python tools/reliability/soak.py photos --count 5000 --out runs/soak
python tools/reliability/soak.py clip --frames 10000 --out runs/soak

Photos: every good file is one of a few variants of the sample photo, each of which was recovered
alone before. A result that is missing, or that differs from that of its variant, is counted. So is
a hostile file without exactly one line on stderr. The command exits with 1 if anything was lost.
"""

import argparse
import collections
import json
import pathlib
import shutil
import sys
from collections.abc import Sequence

import numpy as np
from hostile_files import HOSTILE
from PIL import Image
from watched import Usage, run_watched

from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.recover.people import People

ROOT = pathlib.Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "genhmr_jax" / "assets" / "sample" / "person.jpg"
VARIANTS = 12
SIDE = (240, 640)  # px, of the longer side of the photos
SHARE = 5  # every fifth file is hostile
EQUAL = 1e-4  # metres
GENHMR = [sys.executable, "-m", "genhmr_jax.cli.main"]


def make_variants(folder: pathlib.Path) -> list[pathlib.Path]:
    """Photos of one person, each with another size, crop and orientation."""
    folder.mkdir(parents=True, exist_ok=True)
    random, sample = np.random.default_rng(0), Image.open(SAMPLE).convert("RGB")
    width, height = sample.size
    found = []
    for number in range(VARIANTS):
        left, top, right, bottom = random.uniform(0, 0.06, 4)
        box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
        scale = random.integers(*SIDE) / max(sample.size)
        size = round(scale * (box[2] - box[0])), round(scale * (box[3] - box[1]))
        photo = sample.resize(size, Image.Resampling.BICUBIC, box)
        if number % 2:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        found.append(folder / f"variant_{number:02d}.jpg")
        photo.save(found[-1], quality=90)
    return found


def make_folder(folder: pathlib.Path, variants: Sequence[pathlib.Path], count: int) -> list[str]:
    """Fill a folder with `count` files; the kind of each: a variant's or a hostile file's name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random, names, kinds = np.random.default_rng(1), sorted(HOSTILE), []
    for number in range(count):
        if number % SHARE == SHARE - 1:
            kind = names[number // SHARE % len(names)]
            HOSTILE[kind](folder / f"{number:06d}{pathlib.Path(kind).suffix}")
        else:
            kind = variants[random.integers(len(variants))]
            shutil.copy(kind, folder / f"{number:06d}.jpg")
            kind = kind.stem
        kinds.append(kind)
    return kinds


def check_photos(out: pathlib.Path, alone: pathlib.Path, kinds: Sequence[str]) -> dict[str, int]:
    """Count the results of the good files that are missing, or are not those of their variant."""
    reference = {path.stem: People.load(path) for path in alone.glob("*.npz")}
    counts = collections.Counter(good=0, lost=0, different=0, of_hostile=0)
    for number, kind in enumerate(kinds):
        result = out / f"{number:06d}.npz"
        if kind not in reference:
            counts["of_hostile"] += result.exists()
            continue
        counts["good"] += 1
        if not result.exists():
            counts["lost"] += 1
            continue
        mine, wanted = People.load(result).joints, reference[kind].joints
        same = mine.shape == wanted.shape and np.abs(mine - wanted).max() < EQUAL
        counts["different"] += not same
    return dict(counts)


def soak_photos(count: int, out: pathlib.Path) -> dict[str, float]:
    """Recover a folder of `count` files with one command, and check every result."""
    work = out / "photos"
    variants = make_variants(work / "variants")
    logs = work / "stdout.txt", work / "stderr.txt"
    run_watched(_recover(work / "variants", work / "alone"), *logs)
    kinds = make_folder(work / "mixed", variants, count)
    shutil.rmtree(work / "recovered", ignore_errors=True)
    usage = run_watched(_recover(work / "mixed", work / "recovered"), *logs)
    counts = check_photos(work / "recovered", work / "alone", kinds)
    hostile = count - counts["good"]
    # 1. One line for each file that could not be recovered; nothing half-written.
    lines = [line for line in logs[1].read_text().splitlines() if line.startswith("genhmr: ")]
    named = collections.Counter(
        pathlib.Path(line.split(": ")[1]).name.split(" ")[0].split(".")[0] for line in lines
    )
    reported = sum(named[f"{n:06d}"] == 1 for n in _hostile_numbers(kinds))
    ours = {f"{n:06d}.npz" for n in range(count)}
    strays = [p.name for p in (work / "recovered").iterdir() if p.name not in ours]
    shutil.rmtree(work / "mixed")
    return {
        "files": count,
        **counts,
        "hostile": hostile,
        "hostile with one line": reported,
        "half-written files": len(strays),
        "exit code": usage.code,
        **_memory(usage, count),
    }


def _hostile_numbers(kinds: Sequence[str]) -> list[int]:
    return [number for number, kind in enumerate(kinds) if kind in HOSTILE]


def _recover(images: pathlib.Path, out: pathlib.Path, *flags: str) -> list[str]:
    return [*GENHMR, "recover", str(images), "--out", str(out), "--no-overlay", *flags]


def _memory(usage: Usage, items: int) -> dict[str, float]:
    return {
        "items a second": round(items / usage.seconds, 2),
        "peak memory, MiB": round(usage.peak),
        "memory slope, MiB / 1,000": round(usage.slope(items), 2),
    }


def soak_clip(frames: int, out: pathlib.Path) -> dict[str, float]:
    """Recover one clip of `frames` frames: a person who moves slowly across the picture."""
    from genhmr_jax.io.video_writer import VideoWriter
    from genhmr_jax.recover.clip import Clip

    work = out / "clip"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    person = Image.open(SAMPLE).convert("RGB")
    person.thumbnail((320, 320))
    free = np.array([480, 340]) - np.array(person.size)
    path = work / "long.mp4"
    with VideoWriter(path, (480, 340), 30.0) as writer:
        for number in range(frames):
            page = Image.new("RGB", (480, 340), (120, 130, 125))
            at = free * (0.5 + 0.5 * np.sin(number / np.array([170.0, 230.0])))
            page.paste(person, tuple(at.astype(int).tolist()))
            writer.write(np.asarray(page))
    usage = run_watched(
        _recover(path, work / "recovered"), work / "stdout.txt", work / "stderr.txt"
    )
    found = Clip.load(work / "recovered" / "long.npz")
    return {
        "frames": frames,
        "frames in the result": len(found.times),
        "people": len(found),
        "frames with the first person": int((found.state[0] > 0).sum()),
        "values that are not finite": int((~np.isfinite(found.joints)).sum()),
        "exit code": usage.code,
        **_memory(usage, frames),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Command line. Returns 0, or 1 if a result was lost, different or half-written."""
    parser = argparse.ArgumentParser(description="Recover many photos or a long clip.")
    commands = parser.add_subparsers(dest="what", required=True)
    for name, flag, count in (("photos", "--count", 5000), ("clip", "--frames", 10_000)):
        command = commands.add_parser(name)
        command.add_argument(flag, dest="number", type=int, default=count)
        command.add_argument("--out", type=pathlib.Path, required=True)
    args = parser.parse_args(argv)
    if args.what == "photos":
        row = soak_photos(args.number, args.out)
        failed = row["lost"] or row["different"] or row["half-written files"]
        failed = failed or row["hostile with one line"] != row["hostile"]
    else:
        row = soak_clip(args.number, args.out)
        failed = row["exit code"] or row["frames in the result"] != args.number
    for name, value in row.items():
        print(f"{name:32s} {value}")
    with atomic_path(args.out / f"{args.what}.json") as path:
        path.write_text(json.dumps(row, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
