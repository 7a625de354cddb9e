"""Recorded windows of steps: a real one of the toy game, and the planes that accelerators write."""

import itertools
import json
import re
import time

import pytest
from jax.profiler import ProfileData

from jaxt2i.config import ConfigError
from jaxt2i.data import schema
from jaxt2i.engine import mesh
from jaxt2i.engine import step as steps
from jaxt2i.run import parts, placement, profile, training
from jaxt2i.run.open import load_method as load
from tests.engine.test_engine import SIZES, config, host_batch

SLOW = 0.05


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run of the toy game whose batches come late, with steps 3 to 6 recorded."""
    workdir = tmp_path_factory.mktemp("recorded")
    method, layout = load(config()), placement.layout(mesh.make(8, 1, 1), ((".", "fsdp"),), 0.0)

    def late(first):
        for n in itertools.count(first):
            time.sleep(SLOW)
            yield layout.put_batch(host_batch(n))

    training.train(
        method,
        rules=steps.Rules(3, 16, 8),
        schedule=parts.Schedule(8, 4, 0, 0, recorded=profile.Window(3, 4)),
        layout=layout,
        inputs=parts.Inputs(
            batch=schema.spec(SIZES, method.needs),
            batches=late,
        ),
        workdir=workdir,
        config={},
    )
    return workdir


def test_a_window_is_recorded_and_said_in_words(recorded, capsys):
    (trace,) = (recorded / "profile/plugins/profile/steps_3_to_6").glob("*.xplane.pb")
    found = profile.summarise(ProfileData.from_file(str(trace)), [])
    assert (found.steps, found.devices) == (4, 8)
    assert 4 * SLOW < found.seconds * found.input_wait < found.seconds
    # How far the devices lag behind the loop depends on what else the machine does.
    assert 0 < found.busy < 1
    loops = (found.input_wait, found.device_wait, found.host, found.between)
    assert all(0 <= share <= 1 for share in loops)
    assert sum(loops) == pytest.approx(1)
    assert found.busy + found.idle == 1

    text = (recorded / "profile/summary.txt").read_text()
    assert "steps 3 to 6 on cpu" in text
    assert f"input wait {found.input_wait:.1%}" in text
    # Operations are told what they are and where they come from by the compiled program.
    assert re.search(r"  all-reduce  .*jit_train/all-reduce\S*  .*(Conv|Dense)_0/", text)
    lines = [json.loads(x) for x in (recorded / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 4, 8]
    assert all(0 < line["input_wait"] <= 1 for line in lines)


def test_a_window_outside_the_run_is_refused_before_anything_is_compiled():
    with pytest.raises(ConfigError, match=r"start_step=9, steps=4: steps 9 to 12 .* 1 to 10"):
        parts.Schedule(10, recorded=profile.Window(9, 4))
    with pytest.raises(ConfigError, match=r"config\.profile\.steps=0"):
        parts.Schedule(10, recorded=profile.Window(9, 0))
    parts.Schedule(10, recorded=profile.Window(0, 0))


HOST = """
planes { name: "/host:CPU"
  event_metadata { key: 1 value { id: 1 name: "train" } }
  event_metadata { key: 2 value { id: 2 name: "input wait" } }
  event_metadata { key: 3 value { id: 3 name: "device wait" } }
  lines { name: "python" timestamp_ns: 1000
    events { metadata_id: 1 offset_ps: 0 duration_ps: 400000 }
    events { metadata_id: 2 offset_ps: 0 duration_ps: 100000 }
    events { metadata_id: 3 offset_ps: 200000 duration_ps: 200000 }
    events { metadata_id: 1 offset_ps: 600000 duration_ps: 400000 } } }
"""
# The last step's results are waited for after it.
LANDING = HOST.replace("duration_ps: 400000 } } }", "duration_ps: 300000 }@").replace(
    "@", " events { metadata_id: 3 offset_ps: 900000 duration_ps: 100000 } } }"
)
TPU = """
planes { name: "/device:TPU:0"
  event_metadata { key: 1 value { id: 1 name: "jit_train(77)" } }
  event_metadata { key: 2 value { id: 2
    name: "%fusion.3 = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(bf16[8] %p), kind=kOutput" } }
  event_metadata { key: 3 value { id: 3 name: "%while.1 = (s32[]) while(s32[] %p)" } }
  lines { name: "Steps" events { metadata_id: 1 offset_ps: 0 duration_ps: 900000 } }
  lines { name: "XLA Modules" timestamp_ns: 1100
    events { metadata_id: 1 offset_ps: 0 duration_ps: 300000 } }
  lines { name: "XLA Ops" timestamp_ns: 1100
    events { metadata_id: 3 offset_ps: 0 duration_ps: 300000 }
    events { metadata_id: 2 offset_ps: 0 duration_ps: 100000 }
    events { metadata_id: 2 offset_ps: 150000 duration_ps: 100000 } } }
planes { name: "/device:TPU:0 SparseCore 0" lines { name: "XLA Ops" } }
"""
GPU = """
planes { name: "/device:GPU:0"
  event_metadata { key: 1 value { id: 1 name: "loop_fusion_kernel_3" } }
  event_metadata { key: 2 value { id: 2 name: "MemcpyH2D" } }
  stat_metadata { key: 1 value { id: 1 name: "hlo_op" } }
  stat_metadata { key: 2 value { id: 2 name: "hlo_module" } }
  lines { name: "Stream #13(Compute)" timestamp_ns: 1100
    events { metadata_id: 1 offset_ps: 0 duration_ps: 200000
      stats { metadata_id: 1 str_value: "fusion.3" }
      stats { metadata_id: 2 str_value: "jit_train" } } }
  lines { name: "Stream #14(MemcpyH2D)" timestamp_ns: 1000
    events { metadata_id: 2 offset_ps: 0 duration_ps: 900000 } }
  lines { name: "Stream #15(Compute)" timestamp_ns: 1200
    events { metadata_id: 1 offset_ps: 0 duration_ps: 200000
      stats { metadata_id: 1 str_value: "fusion.3" }
      stats { metadata_id: 2 str_value: "jit_train" } } } }
"""
PROGRAM = """HloModule jit_train, is_scheduled=true

%fused_computation.3 (param_0: bf16[8]) -> bf16[8,128] {
  %param_0 = bf16[8]{0:T(256)(128)(2,1)} parameter(0)
  ROOT %convolution.9 = bf16[8,128]{1,0:T(8,128)(2,1)} convolution(%param_0, %param_0), dim_labels=bf_io->bf
}

ENTRY %main (p: bf16[8]) -> bf16[8,128] {
  %p = bf16[8]{0} parameter(0)
  %pair = (bf16[8]{0}, /*index=1*/f32[8]{0:S(1)}) custom-call(%p), custom_call_target="topk"
  ROOT %fusion.3 = bf16[8,128]{1,0:T(8,128)(2,1)} fusion(%p), kind=kOutput, calls=%fused_computation.3, metadata={op_name="jit(train)/jvp(G)/b4/conv"}
}
"""  # noqa: E501


@pytest.mark.parametrize(("plane", "busy", "count"), [(TPU, 0.3, 2), (GPU, 0.3, 2)])
def test_accelerators_have_planes_of_their_own(plane, busy, count):
    found = profile.summarise(ProfileData.from_text_proto(HOST + plane), [PROGRAM])
    assert (found.steps, found.devices, found.seconds) == (2, 1, pytest.approx(1e-6))
    assert found.busy == pytest.approx(busy)
    shares = (found.input_wait, found.device_wait, found.host, found.between)
    assert shares == pytest.approx((0.1, 0.2, 0.5, 0.2))
    (only,) = found.operations  # the loop around it, and copies beside it, are not operations
    assert (only.program, only.name, only.count) == ("jit_train", "fusion.3", count)
    assert only.kind == profile.Kind("convolution fusion", "jvp(G)/b4/conv")
    assert "33.0% of its peak" in found.text("", 4, 33e4, 2e12)


def test_waiting_after_the_last_step_belongs_to_the_window():
    found = profile.summarise(ProfileData.from_text_proto(LANDING + TPU), [PROGRAM])
    assert (found.steps, found.seconds) == (2, pytest.approx(1e-6))
    shares = (found.input_wait, found.device_wait, found.host, found.between)
    assert shares == pytest.approx((0.1, 0.3, 0.4, 0.2))


def test_custom_calls_are_called_after_their_target():
    name, found = profile.kinds(PROGRAM)
    assert name == "jit_train"
    assert found["pair"].category == "topk"
    assert found["convolution.9"].category == "convolution"
