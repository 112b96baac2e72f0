"""Makes docs/scaling.md: the stage-2 train step compiled for TPU slices that are not here, one
process for each cell of the table.

    python tools/scaling_table.py --results docs/scaling.json --doc docs/scaling.md

What a cell found is kept in the results file; a second call computes only what is missing. A cell
takes minutes of CPU time.
"""

import argparse
import json
import math
import pathlib
import subprocess
import sys
import time
from typing import Any

# The cells are compiled in this order: what matters most first.
TOPOLOGIES = {
    "v5e-256": "v5e:16x16",
    "v5p-64": "v5p:4x4x4",
    "v6e-256": "v6e:16x16",
    "v5e-16": "v5e:4x4",
}
MODELS = {
    "ViT-H": "configs/genhmr/vit.py:h",
    "ViT-L": "configs/genhmr/vit.py:l",
    "ViT-B": "configs/genhmr/vit.py:b",
}
MICRO_BATCH = {"v5e": 16, "v5p": 64, "v6e": 16}  # rows a chip computes at a time
CHIPS = (1, 4, 16, 64, 256, 1024, 4096)
BEGIN, END = "<!-- begin: tools/scaling_table.py -->", "<!-- end: tools/scaling_table.py -->"


def choose(params: int, topology: str, batch: int) -> dict[str, int]:
    """Mesh and micro-batches of a cell.

    `fsdp` takes whole axes of the slice, as few as are needed for parameters, average, moments and
    gradients (20 bytes a parameter) to take a third of the memory at most. A group that fills an
    axis can use the links of both directions where the axis closes to a ring; a part of an axis has
    one link. Micro-batches have MICRO_BATCH rows a chip.
    """
    from genhmr_jax.train.aot.topology import parse

    chip, shape = parse(topology)
    fsdp, axes = 1, list(shape)
    while 20 * params / fsdp > chip.hbm / 3 and axes:
        fsdp *= axes.pop()
    chips = math.prod(shape)
    return {
        "mesh.data": chips // fsdp,
        "mesh.fsdp": fsdp,
        "accumulate": max(batch // (chips * MICRO_BATCH[chip.name]), 1),
    }


def cell(model: str, slice_name: str, fast: bool) -> dict[str, Any]:
    """Compiles one cell in this process."""
    import jax

    from genhmr_jax.cli import aot
    from genhmr_jax.io.config_files import load_config
    from genhmr_jax.io.errors import InputError
    from genhmr_jax.systems import registry

    jax.config.update("jax_platforms", "cpu")
    topology, name = TOPOLOGIES[slice_name], MODELS[model]
    tokenizer, config = load_config("configs/tokenizer/paper.py"), load_config(name)
    shapes, _ = jax.eval_shape(registry.abstract_task(config, tokenizer).init, jax.random.key(0))
    params = sum(x.size for x in jax.tree.leaves(shapes))
    overrides = choose(params, topology, config.image_batch_size)
    found: dict[str, Any] = {
        "params": params,
        "batch": config.image_batch_size,
        "overrides": overrides,
        "fast": fast,
    }
    flags = [f"--config={name}", f"--topology={topology}"]
    flags += [f"--config.{field}={value}" for field, value in overrides.items()]
    found["command"] = " ".join(["genhmr aot", *flags, *(["--fast"] if fast else [])])
    try:
        report = aot.measure(
            load_config(name, overrides), [tokenizer], topology, "train", fast=fast
        )
    except InputError as error:
        return found | {"error": str(error)}
    return found | {"report": report.to_dict()}


def fill(results: pathlib.Path, timeout: float, fast: bool) -> dict[str, Any]:
    """All cells; those that the results file lacks are compiled, one process each, and kept at
    once."""
    found = json.loads(results.read_text()) if results.is_file() else {}
    for model in MODELS:
        for slice_name in TOPOLOGIES:
            key = f"{model} {slice_name}"
            if key in found:
                continue
            print(f"{time.strftime('%H:%M:%S')} {key} ...", flush=True)
            call = [sys.executable, __file__, "--cell", key, *(["--fast"] if fast else [])]
            try:
                done = subprocess.run(call, capture_output=True, text=True, timeout=timeout)
            except subprocess.TimeoutExpired:
                print(f"  not in {timeout:.0f} s; run again with a longer --timeout")
                continue
            if done.returncode:
                lines = done.stderr.strip().splitlines()
                print(f"  failed: {lines[-1] if lines else done.returncode}")
                continue
            found[key] = json.loads(done.stdout.splitlines()[-1])
            results.write_text(json.dumps(found, indent=1) + "\n")
    return found


def tables(found: dict[str, Any]) -> str:
    """The generated part of the document."""
    return "\n\n".join(
        [
            _fit_table(found),
            _speed_table(found),
            _traffic_table(found),
            _scaling_table(found),
            _cost_table(found),
        ]
    )


def _fit_table(found: dict[str, Any]) -> str:
    head = [
        "model",
        "slice",
        "mesh data x fsdp",
        "accumulate",
        "HBM of a chip, GiB",
        "parameters, optimiser",
        "temporaries",
        "fits",
    ]
    rows = []
    for key, value in _cells(found):
        model, slice_name = key.split()
        o = value["overrides"]
        row = [model, slice_name, f"{o['mesh.data']} x {o['mesh.fsdp']}", str(o["accumulate"])]
        if "error" in value:
            rows.append([*row, "", "", "", f"no: {value['error']}"])
            continue
        gib = {k: v / 2**30 for k, v in value["report"]["hbm"].items()}
        sizes = [
            f"{gib['total']:.2f} of {gib['limit']:.2f}",
            f"{gib['arguments']:.2f}",
            f"{gib['temporaries']:.2f}",
        ]
        rows.append([*row, *sizes, "yes" if gib["total"] <= gib["limit"] else "no"])
    return _markdown(head, rows)


def _speed_table(found: dict[str, Any]) -> str:
    head = [
        "model",
        "slice",
        "compute",
        "HBM",
        "ICI",
        "step, all overlapped",
        "step, nothing overlapped",
        "MFU at most",
        "without overlap",
    ]
    head += ["images/s at most", "sent by a chip, GB", "compiled in, s"]
    rows = []
    for key, value in _cells(found):
        if "error" in value:
            continue
        r = value["report"]
        b, s = r["bounds"], r["step_seconds"]
        times = [f"{1e3 * b[name]:.0f}" for name in ("compute", "hbm", "ici")] + [
            f"{1e3 * s[n]:.0f} ms" for n in ("overlapped", "serial")
        ]
        sent = " + ".join(
            f"{row['bytes'] / 1e9:.2f} {kind}"
            for kind, row in r["collectives"].items()
            if row["bytes"] > 5e6
        )
        bounds = [
            f"{100 * r['mfu']:.0f} %",
            f"{100 * r['mfu_serial']:.0f} %",
            f"{value['batch'] / s['overlapped']:.0f}",
        ]
        took = f"{r['compile_seconds']:.0f}{' (O1)' if value['fast'] else ''}"
        rows.append([*key.split(), *times, *bounds, sent or "0", took])
    return _markdown(head, rows)


def _traffic_table(found: dict[str, Any]) -> str:
    """GB and ms of HBM traffic of each part of a step."""
    from genhmr_jax.train.aot.topology import parse
    from genhmr_jax.train.aot.traffic import PARTS

    parts = (*PARTS, "collectives", "other")
    rows = []
    for key, value in _cells(found):
        if "error" in value:
            continue
        model, slice_name = key.split()
        chip, _ = parse(TOPOLOGIES[slice_name])
        of = value["report"]["traffic_of"]
        text = lambda moved, chip=chip: f"{moved / 1e9:.1f}, {1e3 * moved / chip.hbm_bandwidth:.1f}"
        total = text(value["report"]["traffic"])
        rows.append([model, slice_name, *(text(of[part]) for part in parts), total])
    return _markdown(["HBM, GB and ms", "slice", *parts, "all"], rows)


def _scaling_table(found: dict[str, Any]) -> str:
    from genhmr_jax.train.aot.roofline import Load, weak_scaling
    from genhmr_jax.train.aot.topology import parse

    head = ["model", "a chip as in", "batch of a chip", *(f"{n} chips" for n in CHIPS)]
    rows = []
    for key, value in _cells(found):
        if "error" in value:
            continue
        model, slice_name = key.split()
        r, o = value["report"], value["overrides"]
        chip, _ = parse(TOPOLOGIES[slice_name])
        aside = r["hbm"]["total"] - Load.STATE_BYTES * value["params"] / o["mesh.fsdp"]
        load = Load(
            max(r["bounds"]["compute"], r["bounds"]["hbm"]),
            value["params"],
            o["mesh.fsdp"],
            o["accumulate"],
            aside,
        )
        points = [weak_scaling(chip, load, n) for n in CHIPS]
        text = [
            f"{p.serial:.3f} to {p.overlapped:.3f}{'' if p.fits else ' (does not fit)'}"
            for p in points
        ]
        rows.append([model, slice_name, str(value["batch"] // r["chips"]), *text])
    return _markdown(head, rows)


def _cost_table(found: dict[str, Any]) -> str:
    """Steps of the config x the predicted step: bounds from below, like the steps."""
    from genhmr_jax.io.config_files import load_config

    head = [
        "model",
        "slice",
        "steps x images",
        "hours, all overlapped",
        "hours, nothing overlapped",
        "chip hours",
    ]
    rows = []
    for key, value in _cells(found):
        if "error" in value:
            continue
        model, slice_name = key.split()
        steps = load_config(MODELS[model]).steps
        hours = [
            steps * value["report"]["step_seconds"][name] / 3600
            for name in ("overlapped", "serial")
        ]
        chips = " to ".join(f"{h * value['report']['chips']:,.0f}" for h in hours)
        rows.append(
            [
                model,
                slice_name,
                f"{steps:,} x {value['batch']}",
                *(f"{h:.1f}" for h in hours),
                chips,
            ]
        )
    return _markdown(head, rows)


def _cells(found: dict[str, Any]) -> list[tuple[str, Any]]:
    """The cells that were compiled, in the order of the tables."""
    keys = [f"{model} {slice_name}" for model in MODELS for slice_name in TOPOLOGIES]
    return [(key, found[key]) for key in keys if key in found]


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Compile the train step for TPU slices and write the scaling document."
    )
    parser.add_argument("--results", type=pathlib.Path, default=pathlib.Path("docs/scaling.json"))
    parser.add_argument("--doc", type=pathlib.Path, default=pathlib.Path("docs/scaling.md"))
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for a cell")
    parser.add_argument(
        "--fast", action="store_true", help="compile at XLA's level O1, as genhmr aot --fast"
    )
    parser.add_argument(
        "--cell", help="compile this one alone, 'ViT-H v5e-256', and print its JSON"
    )
    parser.add_argument(
        "--only-write", action="store_true", help="write the document from the results there are"
    )
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(cell(*args.cell.split(), args.fast)))
        return
    found = (
        json.loads(args.results.read_text())
        if args.only_write
        else fill(args.results, args.timeout, args.fast)
    )
    text = args.doc.read_text()
    before, rest = text.split(BEGIN)
    args.doc.write_text(f"{before}{BEGIN}\n\n{tables(found)}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    main()
