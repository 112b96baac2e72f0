"""Fuzzing of every reader of untrusted bytes.

    python tools/reliability/fuzz.py --minutes 10 --out runs/fuzz
    python tools/reliability/fuzz.py --minutes 1 --target bvh --target npz --out runs/fuzz

Each target (fuzz_targets/) runs in a process of its own for so many CPU minutes, with a limit on
its memory and a time limit on each input. With atheris (`pip install atheris`) the inputs follow
the coverage of our modules; without it, mutated inputs are kept where the outcome is new. A
process that crashes is started again. The seeds are tests/fuzz_corpus/TARGET/.

OUT gets TARGET.json, TARGET.log, TARGET/corpus/ (inputs with new coverage), TARGET/findings/ (one
input for each place and kind of failure, minimised, with its traceback), and table.md.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORPUS = ROOT / "tests" / "fuzz_corpus"
COLUMNS = ("target", "engine", "cpu_s", "inputs", "cov_start", "cov_end", "kept", "findings",
           "crashes", "hangs", "peak_mib")  # fmt: skip
RESTARTS = 20
"""A target that crashes more often is stopped: its findings must be fixed first."""


def run_target(module: str, name: str, seconds: float, out: pathlib.Path) -> dict:
    """Run one target in a process, again after a crash, and return its numbers."""
    folder = out / name
    for part in ("corpus", "findings"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    state = out / f"{name}.json"
    state.unlink(missing_ok=True)
    crashes = 0
    with open(out / f"{name}.log", "wb") as log:
        while True:
            command = [sys.executable, "fuzz_worker.py", module, name, str(seconds), str(out)]
            before = _read(state).get("cpu_s", 0)
            code = subprocess.run(command, stdout=log, stderr=log, cwd=HERE).returncode
            found = _read(state)
            if code == 0:
                break
            crashes += 1
            current = folder / "current"
            if current.exists():  # what the process worked on
                current.rename(folder / "findings" / f"crash_{crashes}")
                text = f"exit code {code}; see {name}.log"
                (folder / "findings" / f"crash_{crashes}.txt").write_text(text + "\n")
            stuck = found.get("cpu_s", 0) <= before and crashes > 3
            if stuck or crashes > RESTARTS or found.get("cpu_s", 0) >= seconds:
                break
    found = {"target": name, **_read(state), "crashes": crashes}
    state.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _read(state: pathlib.Path) -> dict:
    try:
        return json.loads(state.read_text())
    except (OSError, ValueError):
        return {}


def table(rows: list[dict]) -> str:
    """The numbers of all targets in Markdown."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    for row in rows:
        lines.append("| " + " | ".join(str(row.get(name, "")) for name in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the targets one after the other, and print the table; 1 if anything was found."""
    sys.path.insert(0, str(HERE))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--minutes", type=float, default=10, help="CPU minutes for each target (default: 10)")
    add("--target", action="append", metavar="NAME", help="may be repeated (default: all)")
    add("--out", required=True, type=pathlib.Path, metavar="DIR", help="logs and findings")
    add("--list", action="store_true", help="list the targets, and run none")
    args = parser.parse_args()
    from fuzz_targets import all_targets

    targets = all_targets()

    if args.list:
        for _, target in targets.values():
            print(f"{target.name:18} {target.reader}")
        return 0
    if unknown := set(args.target or ()) - set(targets):
        parser.error(f"no target {sorted(unknown)[0]!r}; --list names them")
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.target or targets:
        start = time.monotonic()
        rows.append(run_target(targets[name][0], name, 60 * args.minutes, out))
        print(json.dumps(rows[-1] | {"wall_s": round(time.monotonic() - start)}), flush=True)
        every = [_read(out / f"{other}.json") for other in targets]
        (out / "table.md").write_text(table([row for row in every if row]))
    print(table(rows))
    return int(any(row.get("findings") or row["crashes"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
