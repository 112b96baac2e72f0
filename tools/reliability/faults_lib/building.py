"""Runs that disturb the building of data: rendered images, records, stored rows."""

import hashlib
import json
import pathlib
import random
import re
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np

from faults_lib import child, systems
from faults_lib.inject import inject

MOST_ATTEMPTS = 8
KINDS = {
    "kill -9 while data are built, at a random time": 4,
    "kill -9 while data are built, between two changes of a folder": 5,
    "full disk while data are built": 2,
}
Build = Callable[[pathlib.Path], None]


def builds(data: pathlib.Path) -> dict[str, tuple[Build, str]]:
    """The builds by name, each with the folder of the campaign's own, unbroken result."""
    images = data / "images"
    return {
        "data: rendered images": (systems.write_images, "images"),
        "data: records": (lambda to: systems.build_photos(to, data / "release"), "built"),
        "data: stored rows": (lambda to: systems.compute_features(to, images, "vit_s"), "crops"),
    }


def run(
    name: str, number: int, seed: int, out: pathlib.Path, faults: int, may_mount: bool
) -> dict[str, Any]:
    """Build data with at least `faults` faults, repeat the same call until it ends, and compare."""
    rng = random.Random(f"{seed}/{number}")
    build, unbroken = builds(out / "data")[name]
    target, log = out / "disk" / "built", out / "logs" / f"{number:03d}"
    log.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    attempts: list[dict[str, Any]] = []
    struck, code = 0, -1
    while code and len(attempts) < MOST_ATTEMPTS:
        fault = _draw(rng, out / "disk", may_mount) if struck < faults else None
        file = log / f"{len(attempts):02d}.log"
        job = lambda fault=fault: (fault and inject(fault), build(target))
        code, seconds = child.forked(job, file)
        fired = (out / "disk" / "fired").exists()
        (out / "disk" / "fired").unlink(missing_ok=True)
        (out / "disk" / "filler").unlink(missing_ok=True)
        text = file.read_text(errors="replace")
        found = []
        if fault and fired:
            struck += 1
            full = re.search("No space left on device", text) is not None
            kept = {name: fault[name] for name in ("kind", "action", "when")}
            found.append(kept | {"detected": full if fault["action"] == "fill" else None})
        attempts.append(
            {
                "code": code,
                "seconds": round(seconds, 2),
                "faults": found,
                "traceback": "Traceback (most recent call last)" in text,
                "log": f"{log.name}/{file.name}",
            }
        )
    problems = [f"not finished after {len(attempts)} attempts"] if code else []
    wanted, have = (_hashes(folder, log) for folder in (out / "data" / unbroken, target))
    changed = sorted(f for f in wanted.keys() & have.keys() if wanted[f] != have[f])
    problems += [f"files differ: {', '.join(changed)}"] if changed else []
    missing = sorted(wanted.keys() - have.keys())
    problems += [f"files are missing: {', '.join(missing)}"] if missing else []
    return {
        "system": name,
        "problems": problems,
        "litter": sorted(have.keys() - wanted.keys()),
        "seconds": round(sum(attempt["seconds"] for attempt in attempts), 1),
        "steps_again": None,
        "attempts": attempts,
    }


def _draw(rng: random.Random, disk: pathlib.Path, may_mount: bool) -> dict[str, Any]:
    """A fault of a build."""
    kinds = {kind: n for kind, n in KINDS.items() if may_mount or "disk" not in kind}
    kind = rng.choices(list(kinds), list(kinds.values()))[0]
    fault = {"kind": kind, "action": "kill", "fired": str(disk / "fired"), "disk": str(disk)}
    if "random time" in kind:
        return fault | {"when": {"seconds": rng.uniform(0.05, 4.0)}}
    if "changes" in kind:
        when = {"file": rng.randint(1, 14), "after": rng.random() < 0.5, "from_start": True}
        return fault | {"when": when}
    left = rng.choice([0, rng.randint(0, 100_000)])
    return fault | {"action": "fill", "left": left, "when": {"seconds": rng.uniform(0, 3.0)}}


def _hashes(folder: pathlib.Path, log: pathlib.Path) -> dict[str, str]:
    """The hash of each file below a folder, of records without the order of their fields.

    They are computed in a forked process: to read records starts threads, and processes that are
    forked from one with these threads crash when they read or write records.
    """
    found = log / "hashes.json"

    def job() -> None:
        hashes = {
            str(path.relative_to(folder)): hashlib.sha256(_content(path)).hexdigest()
            for path in folder.rglob("*")
            if path.is_file()
        }
        found.write_text(json.dumps(hashes))

    code, _ = child.forked(job, log / "hashes.log")
    if code:
        raise RuntimeError(f"the hashes of {folder} failed: {log / 'hashes.log'}")
    return json.loads(found.read_text())


def _content(path: pathlib.Path) -> bytes:
    """The bytes of a file. A protobuf message has the fields of a map in any order."""
    if ".array_record" not in path.name or not (path.parent / "dataset_info.json").is_file():
        return path.read_bytes()
    import tensorflow_datasets as tfds

    found = tfds.builder_from_directory(path.parent).as_data_source()
    records = [source[i] for source in found.values() for i in range(len(source))]
    values = [np.asarray(record[name]) for record in records for name in sorted(record)]
    return b"".join(f"{v.dtype} {v.shape} ".encode() + v.tobytes() for v in values)
