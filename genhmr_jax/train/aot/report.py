"""Compiles a lowered step for a slice and writes down what came out."""

import dataclasses
import math
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from genhmr_jax.train.aot import hlo, hlo_cost
from genhmr_jax.train.aot.chips import GIB, Chip
from genhmr_jax.train.aot.roofline import Roofline, roofline, seconds
from genhmr_jax.train.aot.topology import offline


class OutOfMemory(Exception):
    """The program does not fit a chip. needed: bytes of HBM, as far as the compiler says; what:
    "arguments" or "temporaries"."""

    def __init__(self, needed: float, what: str, message: str):
        super().__init__(message)
        self.needed, self.what = needed, what


@dataclasses.dataclass(frozen=True)
class Report:
    """One compiled step; bytes, FLOPs and seconds are of one chip and one step, but `model_flops`,
    which are of the whole batch.

    Attributes:
      model_flops: matrix FLOPs that the model asks for, without what is computed again.
      flops: matrix FLOPs that the compiled program does, with everything computed again or on
        several chips alike.
      hbm: arguments, outputs, aliased (outputs in the place of arguments), temporaries, code,
        total, limit.
      traffic: estimate of bytes through HBM.
      collectives: for each kind, how many run, the bytes that a chip sends, and their seconds at
        full speed of the links.
    """

    chips: int
    mesh: dict[str, int]
    compile_seconds: float
    model_flops: float
    flops: float
    hbm: dict[str, int]
    traffic: float
    collectives: dict[str, dict[str, float]]
    bounds: Roofline
    mfu: float
    mfu_serial: float
    biggest: list[hlo_cost.Buffer]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
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
    """Compiles (minutes, for a big model) and measures the program.

    Raises:
      OutOfMemory: the compiler finds no way to fit it.
    """
    start = time.monotonic()
    try:
        with offline():
            compiled = lowered.compile()
    except Exception as error:  # a JaxRuntimeError, by version an XlaRuntimeError
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise out_of_memory(str(error)) from error
    took = time.monotonic() - start
    module, memory = hlo.parse(compiled.as_text()), compiled.memory_analysis()
    found = hlo_cost.collectives(module)
    coordinates = [device.coords for device in mesh.devices.flat]
    flops, traffic = hlo_cost.flops(module), hlo_cost.hbm_bytes(module)
    bounds = roofline(chip, flops, traffic, found, shape, coordinates)
    hbm = {
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "aliased": memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    hbm |= {"total": sum(hbm.values()) - 2 * hbm["aliased"], "limit": chip.hbm}
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
        chips,
        dict(mesh.shape),
        took,
        model_flops,
        flops,
        hbm,
        traffic,
        kinds,
        bounds,
        mfu(bounds.overlapped),
        mfu(bounds.serial),
        hlo_cost.biggest(module),
    )


def out_of_memory(message: str) -> OutOfMemory:
    """From the compiler's words: 'required for HLO temporaries (88.00G) exceeds available HBM
    (15.75G)' or 'Used 17.2G of 15.75G'."""
    units = {"": 1, "K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}
    found = re.search(r"required for ([\w ]*?)\(([\d.]+)([KMGT]?)B?\) exceeds", message)
    if found:
        what = "arguments" if "argument" in found[1] else "temporaries"
        return OutOfMemory(float(found[2]) * units[found[3]], what, message)
    used = re.search(r"[Uu]sed ([\d.]+)([KMGT]?)B? of", message)
    return OutOfMemory(
        float(used[1]) * units[used[2]] if used else math.nan, "temporaries", message
    )


def describe(report: Report, title: str) -> str:
    """The report as text for people."""
    gib = lambda n: f"{n / GIB:.2f} GiB"
    hbm, bounds = report.hbm, report.bounds
    mesh = " x ".join(f"{axis} {n}" for axis, n in report.mesh.items())
    lines = [
        f"{title}: {report.chips} chips, mesh {mesh}; compiled in {report.compile_seconds:.0f} s, never run",
        f"  HBM of a chip      {gib(hbm['total'])} of {gib(hbm['limit'])}: "
        f"arguments {gib(hbm['arguments'])}, temporaries {gib(hbm['temporaries'])}, outputs {gib(hbm['outputs'] - hbm['aliased'])}, "
        f"code {gib(hbm['code'])}",
        f"  FLOPs              {report.model_flops:.4g} of the model a step; a chip computes {report.flops:.4g}, "
        f"{report.flops * report.chips / report.model_flops:.2f} x its share of them",
    ]
    for kind, row in report.collectives.items():
        sent = f"{row['bytes'] / 1e9:.3f} GB sent by a chip in {row['times']:.0f}, {1e3 * row['seconds']:.2f} ms"
        lines.append(f"  {kind:18} {sent}")
    if not report.collectives:
        lines.append("  collectives        none")
    lines += [
        f"  roofline           compute {1e3 * bounds.compute:.2f} ms, HBM {1e3 * bounds.hbm:.2f} ms (estimate), "
        f"ICI {1e3 * bounds.ici:.2f} ms",
        f"  predicted step     {1e3 * bounds.overlapped:.2f} ms if all overlaps (bound by {bounds.bound}), "
        f"{1e3 * bounds.serial:.2f} ms if nothing does",
        f"  MFU at most        {100 * report.mfu:.1f} % ({100 * report.mfu_serial:.1f} % without overlap)",
        "  biggest temporaries",
    ]
    lines += [
        f"    {b.bytes / 2**20:9.1f} MiB  {b.shape}{f' x {b.count}' if b.count > 1 else ''}  {b.op_name}"
        for b in report.biggest
    ]
    return "\n".join(lines)
