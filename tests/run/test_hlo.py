"""Reading compiled programs: pieces as the TPU's and the CPU's compiler wrote them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.run import hlo

# Lines of real programs; long attributes that nothing reads are left out.
TPU = (Path(__file__).parent / "step_tpu.hlo").read_text()
MESH = {"data": 2, "fsdp": 2, "tensor": 1}


def instruction(line):
    root, *parts = hlo.INSTRUCTION.match("  " + line).groups()
    return hlo.Instruction(*parts, bool(root))


def test_loops_are_counted_in_full():
    program = hlo.Program(TPU)
    assert program.loops == {"body.1": 3}
    assert program.times["body.1"] == (3, 1)
    assert program.times["fused_computation.1"] == (3, 1)
    product = 2 * (2 * 32) * 96 * 288
    assert program.flops() == (3 * product, product)
    assert program.cycles() == 3 * 500 + 1828


def test_the_dearest_operations_share_all_cycles():
    program = hlo.Program(TPU)
    last, inner = program.dearest()
    assert (last.kind, last.result, last.times) == ("all-reduce", "f32[16], f32[16]", 1)
    assert last.where == "jit(program)/transpose(jvp(Generator))/mapping/reduce_sum"
    # The fusion has no name: its product has. It runs once a turn.
    assert (inner.kind, inner.result, inner.times) == ("convolution fusion", "bf16[2,32,288]", 3)
    assert inner.where == "jit(program)/blocks/qkv/dot_general"
    assert (last.cycles, inner.cycles) == (1828, 3 * 500)
    assert last.cycles + inner.cycles == program.cycles()
    assert last.share == pytest.approx(1828 / program.cycles())
    assert program.dearest(1) == [last]


def test_equal_operations_at_one_place_are_one():
    line = next(x for x in TPU.splitlines() if "channel_id=28" in x)
    again = line.replace("ROOT ", "").replace("reduce.27", "reduce.26")
    other = again.replace("reduce.26", "reduce.25").replace("mapping", "synthesis")
    program = hlo.Program(TPU.replace(line, f"{other}\n{again}\n{line}"))
    twice, once, _ = program.dearest()
    assert (twice.times, twice.cycles) == (2, 2 * 1828)
    assert once.where.endswith("synthesis/reduce_sum")
    assert sum(x.share for x in program.dearest()) == pytest.approx(1)


def test_a_program_without_estimates_has_no_dearest_operations():
    assert hlo.Program(TPU.replace("estimated_cycles", "other")).dearest() == []


@pytest.mark.parametrize(
    ("inside", "line", "kind"),
    [
        ("add", "fusion(%p), kind=kLoop, calls=%f", "loop fusion"),
        ("reduce", "fusion(%p), kind=kInput, calls=%f", "reduce fusion"),
        ("transpose", "fusion(%p), kind=kLoop, calls=%f", "copy fusion"),
        ("add", "add(%p, %p)", "add"),
        ("add", "copy(%p)", "copy"),
        ("add", "copy(%q)", "copy to another layout"),
    ],
)
def test_kinds_of_operations(inside, line, kind):
    told = 'metadata={op_name="a"}, backend_config={"estimated_cycles":"7"}'
    text = f"""%f (x: f32[2,3]) -> f32[2,3] {{
  %x = f32[2,3]{{1,0:T(8,128)}} parameter(0)
  ROOT %y = f32[2,3]{{1,0:T(8,128)}} {inside}(%x), dimensions={{1}}
}}

ENTRY %main (p: f32[2,3], q: f32[2,3]) -> f32[2,3] {{
  %p = f32[2,3]{{1,0:T(8,128)}} parameter(0)
  %q = f32[2,3]{{0,1:T(8,128)}} parameter(1)
  ROOT %out = f32[2,3]{{1,0:T(8,128)S(1)}} {line}, {told}
}}
"""
    (found,) = hlo.Program(text).dearest()
    assert found == hlo.Operation("a", kind, "f32[2,3]", 1, 7.0, 1.0)


def test_messages_know_their_bytes_axis_and_turns():
    inner, last = hlo.Program(TPU).collectives(MESH)
    assert (inner.kind, inner.dtype, inner.bytes) == ("all-reduce", "bf16", 2 * 32 * 96 * 2)
    assert (inner.axes, inner.group, inner.whole, inner.times) == ("fsdp", 2, True, 3)
    assert not inner.gradient
    assert (last.bytes, last.axes, last.group, last.times) == (128, "data+fsdp", 4, 1)
    assert last.gradient


def test_a_group_of_part_of_an_axis_is_known_as_one():
    inner, last = hlo.Program(TPU).collectives({"data": 4, "fsdp": 1, "tensor": 1})
    assert (inner.axes, inner.group, inner.whole) == ("data", 2, False)
    assert (last.axes, last.whole) == ("data", True)


def test_traffic_leaves_out_what_stays_on_the_chip_and_reads_stacks_slice_by_slice():
    activations, hidden, stack = 2 * 32 * 96 * 2, 2 * 32 * 288 * 2, 3 * 96 * 288 * 2
    # A turn: one slice of the stack and its index; the fusion; the sum, read and written; the
    # comparison of the counter with its bound.
    turn = stack / 3 + 4 + (activations + hidden) + 2 * activations + 9
    assert hlo.Program(TPU).traffic() == 3 * turn + 2 * 16 * 4


def test_steps_of_one_message_in_several_computations_count_once():
    line = next(x for x in TPU.splitlines() if "channel_id=28" in x)
    twice = TPU.replace(
        line, line.replace("ROOT ", "").replace("reduce.27", "reduce.26") + "\n" + line
    )
    assert len(hlo.Program(twice).collectives(MESH)) == 2


@pytest.mark.parametrize(
    ("text", "first", "count"),
    [
        ("replica_groups={}", [0, 1, 2, 3, 4, 5, 6, 7], 1),
        ("replica_groups={{0,1,2,3},{4,5,6,7}}, use_global_device_ids=true", [0, 1, 2, 3], 2),
        ("replica_groups=[2,4]<=[8], dimensions={0}", [0, 1, 2, 3], 2),
        ("replica_groups=[4,2]<=[2,4]T(1,0), dimensions={0}", [0, 4], 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_0'}, x_y=1", [0, 4], 4),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4,'axis_2'=1] {'axis_1'}", [0, 1, 2, 3], 2),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}", [0, 1, 2, 3], 2),
        ("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", [0, 4], 4),
        ("replica_groups=mesh['a'=8] {'a':(2)2}", [0, 2], 4),
        ("replica_groups=mesh['a'=2,'b'=4] {'a','b':(1)2}", [0, 2, 4, 6], 2),
    ],
)
def test_replica_groups_in_all_notations(text, first, count):
    line = f"%g = f32[8]{{0}} all-gather(%p), channel_id=1, {text}"
    found = hlo.groups(instruction(line), 8)
    assert found[0].tolist() == first
    assert len(found) == count
    np.testing.assert_array_equal(np.sort(found.ravel()), np.arange(8))


def test_an_unknown_notation_is_refused():
    with pytest.raises(ValueError, match="unknown notation: iota"):
        hlo.groups(instruction("%g = f32[8]{0} all-gather(%p), replica_groups=iota8"), 8)


@pytest.mark.parametrize(
    ("line", "size"),
    [
        ("%a = f32[8,4]{1,0} all-gather(%p), replica_groups={{0,1,2,3}}", 128),
        (
            "%a = (f32[2,4]{1,0}, f32[8,4]{1,0}) all-gather-start(%p), replica_groups={{0,1,2,3}}",
            128,
        ),
        ("%a = bf16[2,4]{1,0} reduce-scatter(%p), replica_groups={{0,1,2,3}}, to_apply=%s", 64),
        (
            "%a = (f32[1,34]{1,0}, f32[1,34]{1,0}) all-to-all(%p, %q), replica_groups={}",
            272,
        ),
        (
            "%a = (f32[8,8]{1,0}, f32[8,8]{1,0}) collective-permute-start(%p), channel_id=4, "
            "source_target_pairs={{0,3},{1,0},{2,1},{3,2}}, frontend_attributes={}",
            256,
        ),
    ],
)
def test_payload_of_every_kind(line, size):
    text = f"ENTRY %main (p: f32[2,4]) -> f32[8,4] {{\n  {line}\n}}\n"
    (found,) = hlo.Program(text).collectives({"data": 4})
    assert found.bytes == size
    assert found.axes == "data"


def test_products():
    known = {
        "x": "f32[8,16,16,64]{3,2,1,0}",
        "k": "f32[3,3,64,128]{3,2,1,0}",
        "m": "f32[64,32]{1,0}",
    }
    window = "window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_01io->b01f"
    conv = instruction(f"%y = f32[8,16,16,128]{{3,2,1,0}} convolution(%x, %k), {window}")
    met = 3 * 16 - 2  # of 3 elements at 16 places, two meet padding
    assert hlo.product(conv, known) == 2 * 8 * 128 * 64 * met**2
    up = window.replace("1_1 ", "1_2 ").replace("size=3x3", "size=3x3 lhs_dilate=2x2")
    transposed = instruction(f"%y = f32[8,32,32,128]{{3,2,1,0}} convolution(%x, %k), {up}")
    met = 3 * 16 - 1  # a value for 1 or 2 elements in turn; the last place has none beyond it
    assert hlo.product(transposed, known) == 2 * 8 * 128 * 64 * met**2
    dims = "lhs_contracting_dims={3}, rhs_contracting_dims={0}"
    dot = instruction(f"%y = f32[8,16,16,32]{{3,2,1,0}} dot(%x, %m), {dims}")
    assert hlo.product(dot, known) == 2 * 8 * 16 * 16 * 32 * 64


def test_a_turn_that_does_the_work_of_two():
    text = """%body.7 (p: (u32[], f32[8])) -> (u32[], f32[8]) {
  %two = u32[]{:T(128)} constant(2)
  %p = (u32[]{:T(128)}, f32[8]{0}) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0
  %x = f32[8]{0} get-tuple-element(%p), index=1
  %next = u32[]{:T(128)} add(%i, %two)
  ROOT %t = (u32[]{:T(128)}, f32[8]{0}) tuple(%next, %x)
}

%cond.7 (p: (u32[], f32[8])) -> pred[] {
  %bound = u32[]{:T(128)} constant(7)
  %p = (u32[]{:T(128)}, f32[8]{0}) parameter(0)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0, metadata={op_name="a"}
  ROOT %less = pred[]{:T(512)} compare(%i, %bound), direction=LT
}
"""
    loop = instruction("%w = (u32[], f32[8]{0}) while(%t), condition=%cond.7, body=%body.7")
    assert hlo.Program(text).trips(loop) == 4


def test_turns_that_the_compiler_noted():
    noted = 'backend_config={"known_trip_count":{"n":"5"}}'
    line = f"%w = (s32[]) while(%t), condition=%c, body=%b, {noted}"
    assert hlo.Program("").trips(instruction(line)) == 5


def test_the_program_and_its_operations_know_their_names():
    program = hlo.Program("HloModule jit_train, is_scheduled=true\n" + TPU.partition("\n")[2])
    assert program.name == "jit_train"
    assert hlo.Program("").name == ""
    marked = instruction('%a = f32[2]{0} add(%b, %c), metadata={op_name="jit(train)/G/add"}')
    assert marked.where == "jit(train)/G/add"
    assert instruction("%a = f32[2]{0} add(%b, %c)").where == ""


@pytest.mark.parametrize("turns", [1, 7])
def test_a_loop_counts_every_turn_compiled_or_not(turns):
    """XLA's own count takes the loop for one turn."""

    def towers(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    x, weights = jnp.ones((16, 64)), jnp.ones((turns, 64, 64))
    lowered = jax.jit(towers).lower(x, weights)
    product = 2 * 16 * 64 * 64
    for program in (lowered, lowered.compile()):
        assert hlo.flops(program) == pytest.approx(turns * product, rel=0.2)


@pytest.mark.parametrize(
    ("where", "told", "products", "known"),
    [
        ("jit(flash_attention)/pallas_call", 99, 2, 99),
        ("jit(flash_attention)/flash_mha_bwd_dq_block_q_major=512/pallas_call", 0, 3, 0),
        ("jit(flash_attention)/flash_mha_bwd_dkv_block_q_major=512/pallas_call", 0, 4, 0),
        ("jit(other)/pallas_call", 99, 0, 99),
    ],
)
def test_kernels_are_counted_by_what_they_multiply(where, told, products, known):
    estimate = f'"cost_estimate":{{"flops":"{told}"}}' if told else ""
    line = instruction(
        "%a = bf16[1,2,8,4]{3,2,1,0} custom-call(%q, %k, %k), "
        f'custom_call_target="tpu_custom_call", metadata={{op_name="{where}"}}, '
        f'backend_config={{"custom_call_config":{{"body":"x"{"," * bool(told)}{estimate}}}}}'
    )
    found = {"q": "bf16[1,2,8,4]{3,2,1,0}", "k": "bf16[1,2,16,4]{3,2,1,0}"}
    pairs = 2 * 2 * 8 * 16 * 4
    assert hlo.kernel(line, found) == (products * pairs or known, known)
    assert hlo.kernel(instruction("%a = f32[2]{0} custom-call(%b)"), {}) == (0, 0)
