"""XLA's attention against Pallas's kernels on a TPU that is not here: what the compiled programs
move through HBM.

    python -m benchmarks.attention_aot [--topology v5e:2x2] [--images 16] [--tokens 192]
    [--heads 16] [--head 80] [--out FILE.json]

Forward and backward of the attention of one layer, bfloat16, `--images` a chip; the defaults are a
ViT-H's. Pallas's kernels take tokens in blocks of 128 and heads of 128 numbers: the arrays are
padded to that. Bytes are those that the compiled program moves through HBM (genhmr_jax/aot), of a
kernel what it is handed and what it returns; products are counted with their padding, and without
what a kernel does a second time. Nothing runs; needs the extra `aot`.
"""

import argparse
import importlib.util
import json
import math
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import flash_attention as flash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as splash_mask
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.settings import Settings
from benchmarks.table import Row, not_available
from genhmr_jax.nets.attention import reference
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.aot import report, topology

LANES = 128
Attention = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def up(n: int) -> int:
    """The next multiple of LANES."""
    return -(-n // LANES) * LANES


def padded(kernel: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]) -> Attention:
    """A kernel of (B, N, T, H) arrays and segments (B, T), in which padding is a segment of its
    own, as attention of (B, T, N, H)."""

    def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        tokens, head = q.shape[1], q.shape[-1]
        widths = ((0, 0), (0, 0), (0, up(tokens) - tokens), (0, up(head) - head))
        segments = jnp.broadcast_to(
            (jnp.arange(up(tokens)) >= tokens).astype(jnp.int32), (q.shape[0], up(tokens))
        )
        out = kernel(
            *(jnp.pad(jnp.swapaxes(x, 1, 2), widths) for x in (q * head**-0.5, k, v)), segments
        )
        return jnp.swapaxes(out[:, :, :tokens, :head], 1, 2)

    return attention


def flash_kernel(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """Flash attention, all tokens in one block."""
    blocks = flash.BlockSizes(*[q.shape[2]] * 3, 1, *[q.shape[2]] * 7)
    return flash.flash_attention(
        q, k, v, segment_ids=flash.SegmentIds(segments, segments), block_sizes=blocks
    )


def splash_kernel(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array) -> jax.Array:
    """Splash attention, all tokens in one block, without a mask."""
    heads, tokens = q.shape[1:3]
    mask = splash_mask.MultiHeadMask([splash_mask.FullMask((tokens, tokens))] * heads)
    names = ("block_q", "block_kv", "block_q_dkv", "block_kv_dkv", "block_q_dq", "block_kv_dq")
    kernel = splash.make_splash_mha(
        mask,
        head_shards=1,
        q_seq_shards=1,
        block_sizes=splash.BlockSizes(**dict.fromkeys(names, tokens)),
    )
    return jax.vmap(kernel)(q, k, v, splash.SegmentIds(segments, segments))


KERNELS: dict[str, Attention] = {
    "xla": reference,
    "flash": padded(flash_kernel),
    "splash": padded(splash_kernel),
}


def measure(attention: Attention, name: str, shape: tuple[int, int, int, int]) -> report.Report:
    """Forward and backward of (images a chip, tokens, heads, numbers a head), compiled for a
    slice."""
    chip, chips = topology.parse(name)
    mesh = meshes.make_mesh({"data": -1, "fsdp": 1, "tensor": 1}, topology.devices(name))
    rows = PartitionSpec("data")

    def both(
        q: jax.Array, k: jax.Array, v: jax.Array, gradient: jax.Array
    ) -> tuple[jax.Array, ...]:
        out, backward = jax.vjp(attention, q, k, v)
        return out, *backward(gradient)

    array = jax.ShapeDtypeStruct(
        (shape[0] * mesh.size, *shape[1:]), jnp.bfloat16, sharding=NamedSharding(mesh, rows)
    )
    step = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False))
    return report.compile_report(step.lower(*[array] * 4), chip, chips, mesh, 1.0)


def rows(settings: Settings) -> list[Row]:
    """HBM traffic of a ViT-H's layer on v5e: XLA's attention, which we use, against the kernels."""
    if importlib.util.find_spec("libtpu") is None:
        return [not_available("attention of a ViT-H's layer on v5e", "needs the extra aot")]
    shape = (16, 192, 16, 80)
    moved = {n: measure(a, "v5e:2x2", shape).traffic / 1e6 for n, a in KERNELS.items()}
    arrays = 8 * 2 * math.prod(shape) / 1e6
    how = "the arrays themselves: q, k, v, output and their gradients"
    return [
        Row(
            "attention of a ViT-H's layer on v5e, HBM traffic",
            moved["xla"],
            "MB",
            f"Pallas {kernel} attention",
            moved[kernel],
            arrays,
            how,
        )
        for kernel in ("flash", "splash")
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Compare what attention kernels move through a TPU's HBM."
    )
    parser.add_argument("--topology", default="v5e:2x2")
    for flag, default in (("--images", 16), ("--tokens", 192), ("--heads", 16), ("--head", 80)):
        parser.add_argument(flag, type=int, default=default)
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")  # the slice is no backend
    shape, found = (args.images, args.tokens, args.heads, args.head), {}
    arrays = (
        8 * 2 * args.images * args.tokens * args.heads * args.head
    )  # q, k, v, output and their four gradients
    for name, attention in KERNELS.items():
        tokens, head = (
            (args.tokens, args.head) if name == "xla" else (up(args.tokens), up(args.head))
        )
        measured = measure(attention, args.topology, shape)
        found[name] = {
            "hbm_mb": measured.traffic / 1e6,
            "hbm_ms": 1000 * measured.bounds.hbm,
            "temporaries_mb": measured.hbm["temporaries"] / 1e6,
            "product_gflop": 6 * 2 * args.images * args.heads * tokens**2 * head / 1e9,
        }
        print(name, json.dumps(found[name]), flush=True)
    print(f"the arrays themselves: {arrays / 1e6:.0f} MB")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
