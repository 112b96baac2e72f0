"""Compilation of a lowered step for a TPU slice, and a report of the compiled program."""

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from genhmr_jax.train.aot import hlo, hlo_cost, traffic
from genhmr_jax.train.aot.chips import GIB, Chip
from genhmr_jax.train.aot.roofline import Roofline, roofline, seconds
from genhmr_jax.train.aot.topology import offline


class OutOfMemory(Exception):
    """The program does not fit the memory of a chip.

    Args:
      needed: bytes of HBM; NaN if the compiler does not state them.
      what: "arguments" or "temporaries".
      message: of the compiler.
    """

    def __init__(self, needed: float, what: str, message: str):
        super().__init__(message)
        self.needed, self.what = needed, what


@dataclasses.dataclass(frozen=True)
class Report:
    """One compiled step. Bytes, FLOPs and seconds are of one chip, if not stated otherwise.

    Attributes:
      chips: their number.
      mesh: size of each axis.
      compile_seconds: time of the compilation.
      model_flops: matrix FLOPs of the model for the whole batch, each product once.
      flops: matrix FLOPs of the compiled program, with products that are computed again or by
        several chips.
      hbm: bytes of arguments, outputs, aliased (outputs in the place of arguments), temporaries,
        code; their total, and the limit.
      traffic: estimated bytes from and to HBM.
      traffic_of: the same for each part of the step.
      collectives: for each kind the number of executions ("times"), the bytes that a chip sends,
        and the seconds at full speed of the links.
      bounds: of the time of the step.
      mfu: model FLOPs utilisation if all resources overlap: an upper bound.
      mfu_serial: the same if nothing overlaps.
      biggest: the largest temporaries.
    """

    chips: int
    mesh: dict[str, int]
    compile_seconds: float
    model_flops: float
    flops: float
    hbm: dict[str, int]
    traffic: float
    traffic_of: dict[str, int]
    collectives: dict[str, dict[str, float]]
    bounds: Roofline
    mfu: float
    mfu_serial: float
    biggest: list[hlo_cost.Buffer]

    def to_dict(self) -> dict[str, Any]:
        """The report as nested dictionaries, for JSON."""
        return dataclasses.asdict(self) | {
            "step_seconds": {"overlapped": self.bounds.overlapped, "serial": self.bounds.serial}
        }


def argument_bytes(shapes: Any) -> int:
    """Bytes on one device of a tree of ShapeDtypeStructs with shardings."""
    leaves = [x for x in jax.tree.leaves(shapes) if hasattr(x, "sharding")]
    size = lambda x: 4 if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x.dtype.itemsize
    return sum(
        math.prod(x.sharding.shard_shape(x.shape) if x.sharding else x.shape) * size(x)
        for x in leaves
    )


def compile_report(
    lowered: jax.stages.Lowered, chip: Chip, shape: Sequence[int], mesh: Mesh, model_flops: float
) -> Report:
    """Compile a step, which takes minutes for a large model, and analyse the program.

    Args:
      lowered: the step.
      chip: the chip.
      shape: chips along each axis of the slice.
      mesh: over the devices of the slice.
      model_flops: matrix FLOPs of the model for the whole batch.

    Raises:
      OutOfMemory: the program does not fit.
    """
    # 1. Compile.
    start = time.monotonic()
    try:
        with offline():
            compiled = lowered.compile()
    except Exception as error:  # JaxRuntimeError or XlaRuntimeError, by version
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise out_of_memory(str(error)) from error
    took = time.monotonic() - start
    # 2. Count operations and bytes.
    module, memory = hlo.parse(compiled.as_text()), compiled.memory_analysis()
    found = hlo_cost.collectives(module)
    coordinates = [device.coords for device in mesh.devices.flat]
    flops, moved = hlo_cost.flops(module), traffic.hbm_bytes(module)
    bounds = roofline(chip, flops, moved, found, shape, coordinates)
    hbm = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    hbm |= {"total": sum(hbm.values()) - 2 * hbm["aliased"], "limit": chip.hbm}
    # 3. Utilisation, and the collectives by kind.
    chips = mesh.devices.size
    mfu = lambda s: model_flops / (chips * chip.flops * s)
    kinds = {
        kind: {
            "times": times,
            "bytes": sent,
            "seconds": sum(seconds(chip, c, shape, coordinates) for c in found if c.kind == kind),
        }
        for kind, times, sent in hlo_cost.by_kind(found)
    }
    return Report(
        chips=chips,
        mesh=dict(mesh.shape),
        compile_seconds=took,
        model_flops=model_flops,
        flops=flops,
        hbm=hbm,
        traffic=moved,
        traffic_of=traffic.by_part(module),
        collectives=kinds,
        bounds=bounds,
        mfu=mfu(bounds.overlapped),
        mfu_serial=mfu(bounds.serial),
        biggest=hlo_cost.biggest(module),
    )


def out_of_memory(message: str) -> OutOfMemory:
    """The OutOfMemory of a compiler's message.

    Known forms are "required for HLO temporaries (88.00G) exceeds available HBM (15.75G)" and "Used
    17.2G of 15.75G".
    """
    units = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    found = re.search(r"required for ([\w ]*?)\(([\d.]+)([KMGT]?)B?\) exceeds", message)
    if found:
        what = "arguments" if "argument" in found[1] else "temporaries"
        return OutOfMemory(float(found[2]) * units[found[3]], what, message)
    used = re.search(r"[Uu]sed ([\d.]+)([KMGT]?)B? of", message)
    needed = float(used[1]) * units[used[2]] if used else math.nan
    return OutOfMemory(needed, "temporaries", message)


def describe(report: Report, title: str) -> str:
    """The report as lines of text."""
    mesh = " x ".join(f"{axis} {n}" for axis, n in report.mesh.items())
    compiled = f"compiled in {report.compile_seconds:.0f} s, never run"
    lines = [f"{title}: {report.chips} chips, mesh {mesh}; {compiled}"]
    lines += [f"  {name:18} {text}" for name, text in _figures(report)]
    lines.append("  biggest temporaries")
    for buffer in report.biggest:
        times = f" x {buffer.count}" if buffer.count > 1 else ""
        size = f"{buffer.bytes / 2**20:9.1f} MiB"
        lines.append(f"    {size}  {buffer.shape}{times}  {buffer.op_name}")
    return "\n".join(lines)


def _figures(report: Report) -> list[tuple[str, str]]:
    """The names and texts of the report's figures."""
    gib = lambda key: f"{report.hbm[key] / GIB:.2f} GiB"
    ms = lambda seconds: f"{1e3 * seconds:.2f} ms"
    percent = lambda share: f"{100 * share:.1f} %"
    bounds = report.bounds
    outputs = f"{(report.hbm['outputs'] - report.hbm['aliased']) / GIB:.2f} GiB"
    ratio = report.flops * report.chips / report.model_flops
    parts = [
        (
            "HBM of a chip",
            f"{gib('total')} of {gib('limit')}: arguments {gib('arguments')}, "
            f"temporaries {gib('temporaries')}, outputs {outputs}, code {gib('code')}",
        ),
        (
            "FLOPs",
            f"{report.model_flops:.4g} of the model a step; a chip computes {report.flops:.4g}, "
            f"{ratio:.2f} x its share of them",
        ),
    ]
    for kind, row in report.collectives.items():
        sent = f"{row['bytes'] / 1e9:.3f} GB sent by a chip in {row['times']:.0f}"
        parts.append((kind, f"{sent}, {ms(row['seconds'])}"))
    if not report.collectives:
        parts.append(("collectives", "none"))
    shares = (f"{name} {moved / 1e9:.2f}" for name, moved in report.traffic_of.items() if moved)
    parts.append(("HBM traffic", f"{report.traffic / 1e9:.2f} GB: {', '.join(shares)}"))
    parts += [
        (
            "roofline",
            f"compute {ms(bounds.compute)}, HBM {ms(bounds.hbm)} (estimate), ICI {ms(bounds.ici)}",
        ),
        (
            "predicted step",
            f"{ms(bounds.overlapped)} if all overlaps (bound by {bounds.bound}), "
            f"{ms(bounds.serial)} if nothing does",
        ),
        (
            "MFU at most",
            f"{percent(report.mfu)} ({percent(report.mfu_serial)} without overlap)",
        ),
    ]
    return parts
