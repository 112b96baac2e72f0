"""`genhmr aot`: compiled programs, bounds by hand, errors; with libtpu, a real compilation."""

import argparse
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from genhmr_jax.cli import aot
from genhmr_jax.io.errors import InputError
from genhmr_jax.systems import registry
from genhmr_jax.train import mesh as meshes
from genhmr_jax.train.aot import hlo, hlo_cost, infer, report, topology, traffic
from genhmr_jax.train.aot.chips import CHIPS, GIB, box_bandwidth, collective_bandwidth
from genhmr_jax.train.aot.roofline import Load, Roofline, roofline, seconds, weak_scaling
from support.paths import ROOT

# Written as the TPU compiler writes: layouts with tiles, S(1) for memory on the core, a collective
# beside other work in several pieces.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused (p0: f32[12,8,4], p1: s32[]) -> f32[8,4] {
  %p0 = f32[12,8,4]{2,1,0:T(8,128)} parameter(0)
  %p1 = s32[]{:T(128)} parameter(1)
  ROOT %slice = f32[1,8,4]{2,1,0:T(8,128)} dynamic-slice(%p0, %p1, %p1, %p1),\
 dynamic_slice_sizes={1,8,4}
}

%start (q: bf16[2,16]) -> bf16[32,16] {
  %q = bf16[2,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.1 = bf16[32,16]{1,0:T(8,128)(2,1)} all-gather(%q), channel_id=7,\
 replica_groups=[1,16]<=[16], dimensions={0}
}

%done (q2: bf16[2,16]) -> bf16[32,16] {
  %q2 = bf16[2,16]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[32,16]{1,0:T(8,128)(2,1)} all-gather(%q2), channel_id=7,\
 replica_groups=[1,16]<=[16], dimensions={0}
}

%all-reduce-scatter (r: f32[64]) -> f32[4] {
  %r = f32[64]{0:T(128)} parameter(0)
  %all-reduce.9 = f32[64]{0:T(128)} all-reduce(%r), channel_id=9, replica_groups=mesh['a'=4,'b'=4]\
 {'a','b'}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %mine = f32[4]{0:T(128)} dynamic-slice(%all-reduce.9, %zero), dynamic_slice_sizes={4}
}

%body (t: (s32[], f32[12,8,4], f32[4,4], bf16[2,16])) -> (s32[], f32[12,8,4], f32[4,4],\
 bf16[2,16]) {
  %t = (s32[]{:T(128)}, f32[12,8,4]{2,1,0:T(8,128)}, f32[4,4]{1,0},\
 /*index=3*/bf16[2,16]{1,0:T(8,128)(2,1)}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%t), index=0
  %one = s32[]{:T(128)} constant(1)
  %next = s32[]{:T(128)} add(%i, %one)
  %stack = f32[12,8,4]{2,1,0:T(8,128)} get-tuple-element(%t), index=1
  %w = f32[4,4]{1,0} get-tuple-element(%t), index=2
  %part = bf16[2,16]{1,0:T(8,128)(2,1)} get-tuple-element(%t), index=3
  %x = f32[8,4]{1,0:T(8,128)} fusion(%stack, %i), kind=kLoop, calls=%fused
  %y = f32[8,4]{1,0:T(8,128)S(1)} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0},\
 metadata={op_name="jit(step)/dot"}
  %begun = bf16[32,16]{1,0:T(8,128)(2,1)} fusion(%part), kind=kCustom, calls=%start
  %ended = bf16[32,16]{1,0:T(8,128)(2,1)} fusion(%part), kind=kCustom, calls=%done
  ROOT %out = (s32[], f32[12,8,4], f32[4,4], bf16[2,16]) tuple(%next, %stack, %w, %part)
}

%condition (t2: (s32[], f32[12,8,4], f32[4,4], bf16[2,16])) -> pred[] {
  %t2 = (s32[]{:T(128)}, f32[12,8,4]{2,1,0:T(8,128)}, f32[4,4]{1,0}, bf16[2,16]{1,0}) parameter(0)
  %i2 = s32[]{:T(128)} get-tuple-element(%t2), index=0
  %limit = s32[]{:T(128)} constant(12)
  ROOT %less = pred[]{:T(512)} compare(%i2, %limit), direction=LT
}

ENTRY %main (a: f32[12,8,4], b: f32[4,4], c: bf16[2,16], d: f32[64]) -> f32[4] {
  %a = f32[12,8,4]{2,1,0:T(8,128)} parameter(0)
  %b = f32[4,4]{1,0} parameter(1)
  %c = bf16[2,16]{1,0:T(8,128)(2,1)} parameter(2)
  %d = f32[64]{0:T(128)} parameter(3)
  %first = s32[]{:T(128)} constant(0)
  %start.2 = s32[]{:T(128)} copy(%first)
  %tuple = (s32[], f32[12,8,4], f32[4,4], bf16[2,16]) tuple(%start.2, %a, %b, %c)
  %loop = (s32[], f32[12,8,4], f32[4,4], bf16[2,16]) while(%tuple), condition=%condition, body=%body
  %permuted = (f32[64]{0}, f32[64]{0}, u32[], u32[]) collective-permute-start(%d), channel_id=11,\
 source_target_pairs={{0,1},{1,0}}
  %arrived = f32[64]{0} collective-permute-done(%permuted)
  ROOT %sum = f32[4]{0:T(128)} fusion(%arrived), kind=kCustom, calls=%all-reduce-scatter
}
"""


@pytest.fixture(scope="module")
def program() -> hlo.Module:
    return hlo.parse(PROGRAM)


def test_loops_multiply(program):
    assert program.entry == "main"
    times = {"main": 1, "body": 12, "condition": 13, "fused": 12, "start": 12}
    assert {name: program.times[name] for name in times} == times
    assert program.fused == {"fused", "start", "done", "all-reduce-scatter"}


def test_a_stated_trip_count_counts():
    stated = PROGRAM.replace(
        "condition=%condition, body=%body",
        'condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"5"}}',
    )
    assert hlo.parse(stated).times["body"] == 5


def test_collectives_once_each_with_their_turns(program):
    found = {c.kind: c for c in hlo_cost.collectives(program)}
    kinds = ("all-gather", "reduce-scatter", "collective-permute")
    gather, scatter, permute = (found[kind] for kind in kinds)
    assert len(hlo_cost.collectives(program)) == 3
    assert (gather.bytes, gather.size, gather.times) == (2 * 16 * 2, 16, 12)
    assert gather.sent == 12 * 15 * 64  # each device passes on 15 shares of 64 bytes
    assert (scatter.bytes, scatter.size, scatter.sent) == (256, 16, 240)
    assert (permute.bytes, permute.sent) == (256, 256)


def test_flops_and_memory_by_hand(program):
    assert hlo_cost.flops(program) == 12 * 2 * 8 * 4 * 4
    # In whole tiles. A slice of the stack and the counter, x; x and w (the product is on the core).
    fusion, dot = 4096 + 512 + 4096, 4096 + 4 * 4 * 4
    adding, gather = 3 * 512, 8 * 128 * 2 + 32 * 128 * 2
    entry = 2 * 512 + (512 + 256) + (256 + 512)  # copy of the counter, permute, reduce-scatter
    compare = 13 * 3 * 512
    assert traffic.hbm_bytes(program) == 12 * (fusion + dot + adding + gather) + entry + compare
    assert traffic.by_part(program)["collectives"] == 12 * gather + 512 + 256


def test_the_biggest_arrays_have_names(program):
    biggest = hlo_cost.biggest(program, 2)
    assert (biggest[0].shape, biggest[0].bytes, biggest[0].count) == ("bf16[32,16]", 1024, 2)
    name = "jit(step)/transpose(jvp())/while/body/closed_call/checkpoint"
    assert hlo_cost.short(f"{name}/rematted_computation/mlp/dot") == "backward: again: mlp/dot"


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}, x", ((0, 2), (1, 3))),
        ("replica_groups=[2,2]<=[4]", ((0, 1), (2, 3))),
        ("replica_groups=[2,2]<=[2,2]T(1,0)", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=2,'b'=3] {'b'}", ((0, 1, 2), (3, 4, 5))),
        ("replica_groups=mesh['a'=2,'b'=3] {'a'}", ((0, 3), (1, 4), (2, 5))),
        (
            "replica_groups=mesh['a'=1,'b'=2,'c'=3], device_ids=([3,2]T(1,0)) {'c'}, x",
            ((0, 2, 4), (1, 3, 5)),
        ),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([0,3,1,2]) {'b'}, x", ((0, 3), (1, 2))),
        ("replica_groups=mesh['a'=4] {'a':(1)2}", ((0, 2), (1, 3))),
        ("replica_groups=mesh['a'=4] {'a':(2)2}", ((0, 1), (2, 3))),
        ("source_target_pairs={{0,1},{1,0}}", ((0, 1), (1, 0))),
        ("to_apply=%add", ()),
    ],
)
def test_groups_in_all_spellings(text, groups):
    assert hlo_cost.replica_groups(text) == groups


def test_a_batched_product_as_the_tpu_writes_it():
    # (8 x [4,16] @ [16,4]) as a convolution whose window runs over the batch with dilation: only
    # one place in eight is a product.
    text = """HloModule m

ENTRY %main (a: bf16[8,4,16], b: bf16[8,16,4]) -> bf16[8,4,4] {
  %a = bf16[8,4,16]{2,1,0} parameter(0)
  %b = bf16[8,16,4]{2,1,0} parameter(1)
  ROOT %c = bf16[8,4,4]{2,1,0} convolution(%a, %b), window={size=8 stride=7 pad=0_0 lhs_dilate=8},\
 dim_labels=0bf_0io->0bf
}
"""
    assert hlo_cost.flops(hlo.parse(text)) == 2 * 8 * 4 * 4 * 16


def test_counts_of_a_program_of_this_machine():
    def network(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=7)[0]

    shapes = (
        jax.ShapeDtypeStruct((256, 256), jnp.float32),
        jax.ShapeDtypeStruct((256, 256), jnp.float32),
    )
    module = hlo.parse(jax.jit(network).lower(*shapes).compile().as_text())
    counted = hlo_cost.flops(module)
    # Some builds of XLA for CPU hand products to a library; then at least the loop is there.
    assert counted in (0, 7 * 2 * 256**3) and 7 in module.times.values()


COLLECTIVES = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, jax.numpy as jnp
jax.config.update("jax_platforms", "cpu")
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from genhmr_jax.train.aot import hlo, hlo_cost
mesh = jax.make_mesh((2, 4), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
rows = NamedSharding(mesh, P(("data", "fsdp")))
x = jax.ShapeDtypeStruct((64, 32), jnp.float32, sharding=rows)
total = jax.jit(lambda x: jnp.sum(x, 0), out_shardings=NamedSharding(mesh, P())).lower(x).compile()
whole = jax.jit(lambda x: x + 1, out_shardings=NamedSharding(mesh, P("data"))).lower(x).compile()
for compiled in (total, whole):
    for c in hlo_cost.collectives(hlo.parse(compiled.as_text())):
        print(c.kind, c.bytes, c.size, c.sent)
"""


def test_collectives_of_a_real_program_on_eight_devices():
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", COLLECTIVES], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout.split("\n")[:2] == [
        f"all-reduce 128 8 {2 * 128 * 7 / 8}",
        f"all-gather 1024 4 {3 * 1024.0:.0f}",
    ]


def test_bandwidth_of_groups():
    v5e = CHIPS["v5e"]
    assert v5e.link == 50e9  # 400 GB/s over four links, both directions counted
    assert box_bandwidth(v5e, (16, 16), (16, 16)) == 4 * v5e.link
    assert box_bandwidth(v5e, (16, 16), (1, 16)) == 2 * v5e.link
    # A 4x4 slice of v5e does not close to rings.
    assert box_bandwidth(v5e, (4, 4), (4, 4)) == 2 * v5e.link
    assert collective_bandwidth(v5e, (4, 4), [(0, 0), (0, 1), (0, 2), (0, 3)]) == v5e.link
    assert collective_bandwidth(v5e, (4, 4), [(0, 0), (2, 2)]) == v5e.link
    assert box_bandwidth(CHIPS["v5p"], (4, 4, 4), (4, 4, 4)) == 6 * CHIPS["v5p"].link


def test_roofline_by_hand():
    v5e, coordinates = CHIPS["v5e"], [(i // 16, i % 16, 0) for i in range(256)]
    reduce = hlo_cost.Collective("all-reduce", 10**9, (tuple(range(16)),), 1, "")
    assert seconds(v5e, reduce, (16, 16), coordinates) == pytest.approx(2 * 15 / 16 * 1e9 / 100e9)
    exchange = hlo_cost.Collective("all-to-all", 10**9, (tuple(range(16)),), 2, "")
    assert seconds(v5e, exchange, (16, 16), coordinates) == pytest.approx(2 * 16 * 1e9 / (8 * 50e9))
    found = roofline(v5e, 197e12 * 0.05, 819e9 * 0.01, [reduce], (16, 16), coordinates)
    assert (found.compute, found.hbm, found.ici) == pytest.approx((0.05, 0.01, 0.01875))
    assert (found.overlapped, found.bound) == (found.compute, "compute")
    assert found.serial == pytest.approx(0.07875)
    assert Roofline(1.0, 2.0, 3.0, 4.0).bound == "dcn"


def test_weak_scaling_by_hand():
    v5e = CHIPS["v5e"]
    load = Load(local=0.1, params=10**9, fsdp=16, accumulate=1, bytes_aside=GIB)
    one, pod, four = (weak_scaling(v5e, load, n) for n in (1, 256, 1024))
    assert (one.ici, one.dcn, one.overlapped, one.serial) == (0, 0, 1, 1)
    assert not one.fits  # 16 GB of parameters and moments
    assert pod.fits and pod.slices == 1 and four.slices == 4
    gathered, summed = 3 * 2e9 * 15 / 16, 2 * 2e9 / 16 * 15 / 16
    assert pod.ici == pytest.approx((gathered + summed) / 100e9)
    assert pod.serial == pytest.approx(0.1 / (0.1 + pod.ici))
    assert pod.overlapped == 1.0
    assert four.dcn == pytest.approx(4e9 / 256 * 3 / 4 / 3.125e9)
    assert four.serial < pod.serial


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v9:4x4", ["v9", "v5e:16x16", "v6e:16x16"]),
        ("v5e", ["KIND:AxB", "v5e:16x16"]),
        ("v5e:3x3", ["no v5e slice", "v5e:2x4", "v5e:4x4"]),
        ("v5p:4x4", ["no v5p slice", "v5p:2x2x4", "v5p:2x4x4"][::2]),
    ],
)
def test_an_unknown_slice_names_the_nearest(name, words):
    with pytest.raises(InputError) as error:
        topology.parse(name)
    assert all(word in str(error.value) for word in [f"--topology={name}", *words])


def test_without_libtpu_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "libtpu", None)
    with pytest.raises(InputError, match=r'pip install "jax\[tpu\]"'):
        topology.devices("v5e:2x2")


def test_what_the_compiler_says_of_memory():
    error = report.out_of_memory(
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
        "required for HLO temporaries (88.00G) exceeds available HBM (15.75G). "
        "HLO module: jit_f."
    )
    assert (error.needed, error.what) == (88 * GIB, "temporaries")
    assert report.out_of_memory("RESOURCE_EXHAUSTED: Used 17.5G of").needed == 17.5 * GIB


class _Mesh:
    shape, size = {"data": 16, "fsdp": 4, "tensor": 1}, 64


@pytest.mark.parametrize(
    ("what", "needed", "kind", "remedy"),
    [
        ("train", 40, "temporaries", "--config.accumulate=4 "),
        ("train", 20, "arguments", "--config.mesh.fsdp=8 "),
        ("train", 4000, "temporaries", "a larger slice"),
        ("infer", 20, "temporaries", "--config.image_batch_size=256 "),
    ],
)
def test_too_little_memory_names_what_fits(get_config, what, needed, kind, remedy):
    config = get_config("genhmr/vit:h")
    config.image_batch_size = 512
    error = aot.too_small(
        config, _Mesh, CHIPS["v5e"], report.OutOfMemory(needed * GIB, kind, ""), "v5e:8x8", what
    )
    assert remedy in str(error) and f"{needed}.00 GiB do not fit 15.75 GiB" in str(error)


def test_the_inference_step_by_shapes(get_config):
    config = get_config("genhmr/tiny")
    task = registry.abstract_task(config, get_config("tokenizer/tiny"))
    mesh = meshes.make_mesh(config.mesh, jax.devices()[:1])
    made = infer.build(task, config, mesh, 4)
    found = jax.eval_shape(made.step, *made.shapes)
    assert found.vertices.shape[0] == 4 and found.vertices.shape[2] == 3
    assert found.global_orient.shape == (4, 3) and found.body_pose.shape == (4, 69)
    assert found.tokens.shape == (4, task.spec.tokenizer.length)
    assert {x.dtype for x in jax.tree.leaves(made.shapes[0]["genhmr"])} == {jnp.dtype(jnp.bfloat16)}


def test_flags_import_no_jax():
    code = (
        "import argparse, sys; from genhmr_jax.cli import aot; "
        "p = argparse.ArgumentParser(); aot.add_flags(p); "
        "a = p.parse_args(['--config=x.py', '--topology=v5e:4x4']); "
        "assert a.what == 'train' and not a.overrides; "
        "assert 'jax' not in sys.modules"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=env)


def test_stage_1_has_no_inference_step(get_config):
    config = get_config("tokenizer/tiny")
    mesh = meshes.make_mesh(config.mesh, jax.devices()[:1])
    with pytest.raises(InputError, match="a tokenizer has no inference step; give --what=train"):
        infer.build(registry.abstract_task(config), config, mesh, 4)


def test_the_command_refuses_the_inference_step_of_stage_1(monkeypatch):
    # The error comes before any compilation: a device of this machine can replace the slice.
    monkeypatch.setattr(topology, "devices", lambda _: jax.devices()[:1])
    parser = argparse.ArgumentParser()
    aot.add_flags(parser)
    args = parser.parse_args(
        [
            f"--config={ROOT}/configs/tokenizer/tiny.py",
            "--topology=v5e:2x2",
            "--what=infer",
            f"--first-stage={ROOT}/configs/tokenizer/body_parts.py",
        ]
    )
    with pytest.raises(InputError, match="--what=infer: a tokenizer has no inference step"):
        aot.run(args)


TPU = """
import jax, jax.numpy as jnp
jax.config.update("jax_platforms", "cpu")
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from genhmr_jax.train.aot import report, topology
chip, shape = topology.parse("v5e:2x2")
devices = topology.devices("v5e:2x2")
mesh = jax.make_mesh((4,), ("fsdp",), axis_types=(AxisType.Auto,), devices=devices)
rows, split = NamedSharding(mesh, P("fsdp")), NamedSharding(mesh, P(None, "fsdp"))
x = jax.ShapeDtypeStruct((512, 1024), jnp.bfloat16, sharding=rows)
w = jax.ShapeDtypeStruct((6, 1024, 1024), jnp.bfloat16, sharding=split)
pin = lambda x: jax.lax.with_sharding_constraint(x, rows)
layer = lambda c, v: (pin(jnp.tanh(c @ v)), None)
f = jax.jit(lambda x, w: jax.lax.scan(layer, x, w)[0], out_shardings=rows)
r = report.compile_report(f.lower(x, w), chip, shape, mesh, 6 * 2 * 512 * 1024**2)
print(report.describe(r, "toy"))
assert r.flops * 4 == r.model_flops, (r.flops, r.model_flops)
sent = sum(row["bytes"] for row in r.collectives.values())
assert 0.9 < sent / (6 * 1024 * 1024 * 2 * 3 / 4) < 1.4, sent
assert r.hbm["arguments"] == (512 * 1024 + 6 * 1024**2) * 2 // 4 and r.hbm["limit"] == chip.hbm
assert 0 < r.mfu_serial <= r.mfu <= 1
# Arrays that do not fit on the core: a product reads two and writes one.
x = jax.ShapeDtypeStruct((4 * 8192, 8192), jnp.bfloat16, sharding=rows)
w = jax.ShapeDtypeStruct((8192, 8192), jnp.bfloat16, sharding=NamedSharding(mesh, P()))
f = jax.jit(lambda x, w: x @ w, out_shardings=rows)
assert report.compile_report(f.lower(x, w), chip, shape, mesh, 1).traffic == 3 * 2 * 8192**2
"""


def test_a_real_compilation_for_a_tpu_slice():
    pytest.importorskip("libtpu")
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", TPU], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "never run" in done.stdout and "all-gather" in done.stdout
