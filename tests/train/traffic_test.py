"""HBM traffic of pieces of programs, written as the TPU compiler writes them."""

import pytest

from genhmr_jax.train.aot import hlo, hlo_cost, traffic

X = "bf16[16,192,1280]{2,1,0:T(8,128)(2,1)}"
CORE = "bf16[16,192,1280]{2,1,0:T(8,128)(2,1)S(1)}"
BYTES = 16 * 192 * 1280 * 2
STACK = "bf16[32,16,192,1280]{3,2,1,0:T(8,128)(2,1)}"


def moved(entry: str, before: str = "") -> int:
    """The bytes of a program whose entry computation has these lines."""
    return traffic.hbm_bytes(
        hlo.parse(f"HloModule m\n\n{before}\nENTRY %main () -> f32[] {{\n{entry}}}\n")
    )


def test_a_transfer_to_the_core_reads_once_and_one_from_it_writes_once():
    there = f"""  %p = {X} parameter(0)
  %copy-start = ({CORE}, {X}, u32[]{{:S(2)}}) copy-start(%p)
  ROOT %copy-done = {CORE} copy-done(%copy-start)
"""
    assert moved(there) == BYTES
    back = there.replace(X, "Y").replace(CORE, X).replace("Y", CORE)
    assert moved(back) == BYTES


def test_an_asynchronous_slice_reads_the_slice_alone():
    quarter = "bf16[4,192,1280]{2,1,0:T(8,128)(2,1)S(1)}"
    lines = f"""  %p = {X} parameter(0)
  %slice-start = (({X}), {quarter}, s32[]{{:S(2)}}) slice-start(%p),\
 slice={{[0:4], [0:192], [0:1280]}}
  ROOT %slice-done = {quarter} slice-done(%slice-start)
"""
    assert moved(lines) == BYTES // 4
    into_hbm = lines.replace("T(8,128)(2,1)S(1)", "T(8,128)(2,1)")
    assert moved(into_hbm) == BYTES // 2


@pytest.mark.parametrize(
    ("array", "stored"),
    [
        ("f32[16,192]{1,0:T(8,128)}", 16 * 256 * 4),
        ("bf16[16,192,48,80]{3,2,1,0:T(8,128)(2,1)}", 16 * 192 * 48 * 128 * 2),
        ("f32[2,3,80]{0,2,1:T(8,128)}", 128 * 3 * 80 * 4),
        ("f32[300]{0:T(1024)}", 1024 * 4),
        ("pred[]{:T(512)}", 512),
        ("f32[10]{0}", 40),
        ("f32[10]{0:T(128)S(1)}", 0),
    ],
)
def test_tiles_are_stored_whole(array, stored):
    assert hlo.arrays(array)[0].hbm == stored


NESTED = f"""%slice (p.1: bf16[32,16,192,1280], i.1: s32[]) -> bf16[16,192,1280] {{
  %p.1 = {STACK} parameter(0)
  %i.1 = s32[]{{:T(128)S(6)}} parameter(1)
  %cut = bf16[1,16,192,1280]{{3,2,1,0:T(8,128)(2,1)}} dynamic-slice(%p.1, %i.1),\
 dynamic_slice_sizes={{1,16,192,1280}}
  ROOT %flat = {X} bitcast(%cut)
}}

%product (p.2: bf16[1280,1280], p.3: bf16[32,16,192,1280], i.2: s32[]) -> bf16[16,192,1280] {{
  %p.2 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} parameter(0)
  %p.3 = {STACK} parameter(1)
  %i.2 = s32[]{{:T(128)S(6)}} parameter(2)
  %x = {X} fusion(%p.3, %i.2), kind=kLoop, calls=%slice
  ROOT %y = {X} convolution(%x, %p.2), window={{size=1}}, dim_labels=0bf_io0->0bf
}}

%store (p.4: bf16[32,16,192,1280], p.5: bf16[16,192,1280], i.3: s32[]) -> bf16[32,16,192,1280] {{
  %p.4 = {STACK} parameter(0)
  %p.5 = {X} parameter(1)
  %i.3 = s32[]{{:T(128)S(6)}} parameter(2)
  %one = bf16[1,16,192,1280]{{3,2,1,0:T(8,128)(2,1)}} bitcast(%p.5)
  ROOT %put = {STACK} dynamic-update-slice(%p.4, %one, %i.3)
}}
"""


def test_fusions_read_slices_and_write_in_place():
    """Also where the slice is in a fusion of the fusion."""
    lines = f"""  %w = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} parameter(0)
  %stack = {STACK} parameter(1)
  %i = s32[]{{:T(128)S(6)}} parameter(2)
  %y = {CORE} fusion(%w, %stack, %i), kind=kOutput, calls=%product
  ROOT %all = {STACK} fusion(%stack, %y, %i), kind=kLoop, calls=%store
"""
    weights = 1280 * 1280 * 2
    assert moved(lines, NESTED) == weights + BYTES + BYTES


VIEWS = f"""%view (p.1: bf16[16,192,1280]) -> bf16[16,192,1280] {{
  %p.1 = {X} parameter(0)
  ROOT %same = {X} bitcast(%p.1)
}}

%product (p.2: bf16[16,192,1280], p.3: bf16[1280,1280]) -> bf16[16,192,1280] {{
  %p.2 = {X} parameter(0)
  %x = {X} fusion(%p.2), kind=kLoop, calls=%view
  %p.3 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} parameter(1)
  %y = {X} convolution(%x, %p.3), window={{size=1}}, dim_labels=0bf_io0->0bf
  ROOT %z = {X} fusion(%y), kind=kLoop, calls=%view
}}
"""


def test_a_fusion_that_is_only_a_view_hides_neither_reading_nor_writing():
    lines = f"""  %x = {X} parameter(0)
  %w = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} parameter(1)
  ROOT %y = {X} fusion(%x, %w), kind=kOutput, calls=%product
"""
    assert moved(lines, VIEWS) == 2 * BYTES + 1280 * 1280 * 2


GATHER = "all-gather({}), channel_id=7, replica_groups=[64,4]<=[256], dimensions={{0}}"
BESIDE = f"""%begin (s.1: bf16[320,1280]) -> (bf16[320,1280], bf16[1280,1280]) {{
  %s.1 = bf16[320,1280]{{1,0:T(8,128)(2,1)}} parameter(0)
  %g.1 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} {GATHER.format("%s.1")}
  ROOT %c.1 = (bf16[320,1280]{{1,0:T(8,128)(2,1)}}, bf16[1280,1280]{{1,0:T(8,128)(2,1)}})\
 custom-call(%g.1), custom_call_target="AsyncCollectiveStart"
}}

%work (s.2: bf16[320,1280], b.2: bf16[1280,1280], x.2: bf16[16,192,1280]) -> (bf16[16,192,1280],\
 bf16[320,1280], bf16[1280,1280], bf16[1280,1280]) {{
  %s.2 = bf16[320,1280]{{1,0:T(8,128)(2,1)}} parameter(0)
  %b.2 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} parameter(1)
  %x.2 = {X} parameter(2)
  %g.2 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} {GATHER.format("%s.2")}
  %z.2 = {X} negate(%x.2)
  ROOT %t.2 = ({X}, bf16[320,1280]{{1,0:T(8,128)(2,1)}}, bf16[1280,1280]{{1,0:T(8,128)(2,1)}},\
 bf16[1280,1280]{{1,0:T(8,128)(2,1)}}) tuple(%z.2, %s.2, %b.2, %g.2)
}}

%end (s.3: bf16[320,1280], b.3: bf16[1280,1280]) -> bf16[1280,1280] {{
  %s.3 = bf16[320,1280]{{1,0:T(8,128)(2,1)}} parameter(0)
  %b.3 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} parameter(1)
  %g.3 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} {GATHER.format("%s.3")}
  ROOT %c.3 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} custom-call(%s.3, %b.3, %g.3),\
 custom_call_target="AsyncCollectiveDone"
}}
"""


def test_a_collective_beside_other_work_counts_once():
    """Its buffers are operands and results of the fusion that it runs beside."""
    pair = "bf16[320,1280]{1,0:T(8,128)(2,1)}, bf16[1280,1280]{1,0:T(8,128)(2,1)}"
    lines = f"""  %s = bf16[320,1280]{{1,0:T(8,128)(2,1)}} parameter(0)
  %x = {X} parameter(1)
  %start = ({pair}) fusion(%s), kind=kCustom, output_to_operand_aliasing={{{{0}}: (0, {{}})}},\
 calls=%begin
  %s.0 = bf16[320,1280]{{1,0:T(8,128)(2,1)}} get-tuple-element(%start), index=0
  %b.0 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} get-tuple-element(%start), index=1
  %beside = ({X}, {pair}, bf16[1280,1280]{{1,0:T(8,128)(2,1)}}) fusion(%s.0, %b.0, %x),\
 kind=kLoop, output_to_operand_aliasing={{{{1}}: (0, {{}}), {{2}}: (1, {{}}), {{3}}: (1, {{}})}},\
 calls=%work
  %s.9 = bf16[320,1280]{{1,0:T(8,128)(2,1)}} get-tuple-element(%beside), index=1
  %b.9 = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} get-tuple-element(%beside), index=2
  ROOT %w = bf16[1280,1280]{{1,0:T(8,128)(2,1)}} fusion(%s.9, %b.9), kind=kCustom,\
 output_to_operand_aliasing={{{{}}: (1, {{}})}}, calls=%end
"""
    gathered = (320 + 1280) * 1280 * 2
    assert moved(lines, BESIDE) == gathered + 2 * BYTES


def test_collectives_that_share_a_channel_are_told_apart():
    """XLA gives the channel 1 to all that it combines or adds."""
    scatter = """%all-reduce-scatter.NUMBER (p.NUMBER: f32[64]) -> f32[16] {
  %p.NUMBER = f32[64]{0} parameter(0)
  %r.NUMBER = f32[64]{0} all-reduce(%p.NUMBER), channel_id=1, replica_groups={{0,1,2,3}}
  %zero.NUMBER = s32[] constant(0)
  ROOT %s.NUMBER = f32[16]{0} dynamic-slice(%r.NUMBER, %zero.NUMBER), dynamic_slice_sizes={16}
}

"""
    permute = "collective-permute(%a), channel_id=1, source_target_pairs="
    text = f"""{scatter.replace("NUMBER", "1")}{scatter.replace("NUMBER", "2")}
ENTRY %main (a: f32[64]) -> f32[16] {{
  %a = f32[64]{{0}} parameter(0)
  %b = f32[64]{{0}} {permute}{{{{0,1}},{{1,0}}}}
  %c = f32[64]{{0}} {permute}{{{{0,2}},{{2,0}}}}
  %d = f32[16]{{0}} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %e = f32[16]{{0}} fusion(%c), kind=kCustom, calls=%all-reduce-scatter.2
}}
"""
    found = hlo_cost.collectives(hlo.parse(text))
    assert sorted(c.sent for c in found) == [192, 192, 256, 256]
    assert traffic.hbm_bytes(hlo.parse(text)) == 4 * 256 + 2 * (256 + 64)


def test_buffers_that_are_only_made_or_viewed_move_nothing():
    lines = f"""  %a = {X} custom-call(), custom_call_target="AllocateBuffer"
  ROOT %b = {X} custom-call(%a), custom_call_target="ConcatBitcast"
"""
    assert moved(lines) == 0


def test_parts_by_the_names_of_the_traced_program():
    named = 'metadata={op_name="jit(f)/jvp(vit)/while/body/dot_general"}'
    lines = f"""  %p = {X} parameter(0)
  %a = {X} negate(%p), {named}
  %b = {X} copy(%a)
  ROOT %c = {X} negate(%b), {named.replace("jvp(vit)/while/body", "optimizer")}
"""
    parts = traffic.by_part(hlo.parse(f"ENTRY %main () -> f32[] {{\n{lines}}}\n"))
    wanted = {"vit": 4 * BYTES, "optimizer": 2 * BYTES}
    assert {name: n for name, n in parts.items() if n} == wanted
