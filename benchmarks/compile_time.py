"""Seconds to trace and to compile the paper-scale train step on one device, ViT-H against smaller
ones: it must not grow with depth.

    python -m benchmarks.compile_time [--sizes h b] [--rows 8] [--repeats 3] [--out FILE.json]

The step of configs/genhmr/vit.py:SIZE as `train` runs it (loss, gradient, AdamW, average), for one
device of this machine; no array is made, no data is read, nothing runs. Every measurement has a
process of its own and no compilation cache; the sizes take turns, and the median counts. `ratio`
is that of the sums of both times to those of the last size; `cpu_ratio` that of the processors'
seconds, which other work on the machine disturbs less.
"""

import argparse
import json
import pathlib
import statistics
import sys
import time

from benchmarks.settings import ROOT, Settings
from benchmarks.table import Row
from benchmarks.timing import run_process

NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}


def rows(settings: Settings) -> list[Row]:
    """Tracing and compiling the step of a ViT-H, of a ViT-B, and their ratio."""
    found = compare(["h", "b"], 8, settings.repeats)
    h, b = (found[size]["trace_s"] + found[size]["compile_s"] for size in ("h", "b"))
    note = "; ".join(f"{name} {found['h'][name]:.1f}" for name in ("trace_s", "compile_s"))
    return [
        Row("trace and compile the train step of a ViT-H", h, "s", "ViT-B", b, note=note),
        Row(
            "lines of its lowered program",
            found["h"]["lines"],
            "lines",
            "ViT-B",
            found["b"]["lines"],
        ),
    ]


def measure(size: str, rows: int) -> dict[str, float]:
    """Seconds of tracing with lowering, of compiling, and of the processors for both; and the lines
    of the lowered program."""
    import jax

    from genhmr_jax.io import config_files
    from genhmr_jax.systems import registry
    from genhmr_jax.train import mesh as meshes
    from genhmr_jax.train import program

    config = config_files.load_config(f"{ROOT}/configs/genhmr/vit.py:{size}", {})
    config.image_batch_size, config.mesh.data, config.mesh.fsdp = rows, 1, 1
    task = registry.abstract_task(
        config, config_files.load_config(f"{ROOT}/configs/tokenizer/paper.py", {})
    )
    made = program.build(task, config, meshes.make_mesh(config.mesh, jax.devices()[:1]))
    start, used = time.monotonic(), time.process_time()
    lowered = made.lower()
    middle = time.monotonic()
    lowered.compile()
    end, used = time.monotonic(), time.process_time() - used
    return {
        "trace_s": middle - start,
        "compile_s": end - middle,
        "cpu_s": used,
        "lines": len(lowered.as_text().splitlines()),
    }


def compare(sizes: list[str], rows: int, repeats: int) -> dict[str, dict[str, float]]:
    """The medians of `measure` in processes of their own, and the ratios to the last size."""
    runs: dict[str, list[dict[str, float]]] = {size: [] for size in sizes}
    for _ in range(repeats):
        for size in sizes:
            command = [sys.executable, "-m", "benchmarks.compile_time", "--one"]
            done = run_process([*command, f"--sizes={size}", f"--rows={rows}"], NO_CACHE, str(ROOT))
            runs[size].append(json.loads(done.stdout.splitlines()[-1]))
            print(size, runs[size][-1], file=sys.stderr, flush=True)
    found = {
        size: {name: statistics.median(run[name] for run in several) for name in several[0]}
        for size, several in runs.items()
    }
    last = found[sizes[-1]]
    for times in found.values():
        times["ratio"] = (times["trace_s"] + times["compile_s"]) / (
            last["trace_s"] + last["compile_s"]
        )
        times["cpu_ratio"] = times["cpu_s"] / last["cpu_s"]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Measure how long the train step takes to compile."
    )
    parser.add_argument(
        "--sizes", nargs="+", default=["h", "b"], help="arguments of configs/genhmr/vit.py"
    )
    parser.add_argument("--rows", type=int, default=8, help="images of a batch")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument(
        "--one",
        action="store_true",
        help="measure the first size here and print it: what each process does",
    )
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(args.sizes[0], args.rows)))
        return
    found = compare(args.sizes, args.rows, args.repeats)
    print(json.dumps(found, indent=1))
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
