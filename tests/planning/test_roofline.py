"""Rooflines, networks and machines, against numbers worked out by hand."""

import dataclasses

import pytest

from jaxt2i.config import ConfigError
from jaxt2i.planning import roofline
from jaxt2i.planning.compiled import Program
from jaxt2i.run import chips
from jaxt2i.run.hlo import Collective

V5E = chips.CHIPS["v5e"]
GRADIENT = Collective("all-reduce", "f32", 10**9, 256, "data", True, "transpose(jvp(G))", 1)
TRAIN = Program(
    "train", 1, 0.0, flops=197e10, traffic=819e6 * 4, cycles=15e6, collectives=(GRADIENT,)
)


def test_names_of_machines():
    pod = chips.target("v5e:16x16")
    assert (pod.count, pod.hosts, str(pod)) == (256, 32, "v5e:16x16")
    assert chips.target("v5p:2x2x4").hosts == 4
    assert chips.target("h100:32").hosts == 4
    assert chips.of_size(V5E, 1024) == chips.Target(V5E, (16, 16), 4)
    assert chips.of_size(V5E, 8).shape == (2, 4)
    assert chips.of_size(chips.CHIPS["v5p"], 64).shape == (4, 4, 4)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v9:4x4", "expected CHIP:SHAPE with a chip of v5e"),
        ("v5e", "expected CHIP:SHAPE"),
        ("v5p:4x4", "a 3-D torus, such as v5p:2x2x4"),
        ("h100:8x4", "one row"),
        ("v6e:32x16", "a slice has at most 256"),
    ],
)
def test_wrong_names_are_explained(name, words):
    with pytest.raises(ConfigError, match=words):
        chips.target(name)


def test_the_three_terms_of_a_step():
    found = roofline.times([TRAIN], chips.target("v5e:16x16"))
    assert found.compute == pytest.approx(0.01)
    assert found.memory == pytest.approx(0.004)
    assert found.estimate == pytest.approx(0.01)
    # A closed 16 x 16 torus: 4 links of 50 GB/s; 2 x 255/256 GB, and 2 x 16 hops of 1 us.
    assert found.network == pytest.approx(2 * 255 / 256 / 200 + 32e-6)
    assert found.overlapped == pytest.approx(0.01)
    assert found.apart == pytest.approx(0.01 + found.network)
    assert found.wall == "compute"


def test_lazy_players_count_once_in_so_many_steps():
    lazy = dataclasses.replace(TRAIN, every=16, collectives=())
    found = roofline.times([TRAIN, lazy], chips.target("v5e:16x16"))
    assert found.compute == pytest.approx(0.01 * (1 + 1 / 16))


def test_open_sides_carry_half_and_parts_of_a_slice_one_line():
    v5p = chips.CHIPS["v5p"]
    assert roofline.inner_rate(V5E, (4, 4), True) == 2 * 50e9
    assert roofline.inner_rate(V5E, (8, 16), True) == 3 * 50e9
    assert roofline.inner_rate(V5E, (16, 16), False) == 50e9
    assert roofline.inner_rate(v5p, (2, 2, 4), True) == 3 * 100e9
    assert roofline.inner_rate(v5p, (4, 4, 8), True) == 6 * 100e9
    assert roofline.inner_rate(chips.CHIPS["h100"], (8,), True) == 450e9


def test_between_hosts_only_a_share_of_the_payload_travels():
    host, four = chips.target("h100:8"), chips.target("h100:32")
    near = roofline.message("all-reduce", 9e9, 8, host)
    assert near == pytest.approx(2 * 7 / 8 * 9 / 450 + 2e-6)
    far = roofline.message("all-reduce", 9e9, 32, four)
    assert far - near == pytest.approx(2 * 3 / 4 * (9 / 8) / 50 + 2 * 2 * 10e-6)
    assert roofline.message("all-gather", 9e9, 8, host) == pytest.approx(near / 2)
    assert roofline.message("all-reduce", 9e9, 1, host) == 0


def test_sums_keep_their_size_and_gathers_grow_with_the_machine():
    small, large = chips.target("v5e:4x4"), chips.target("v5e:16x16")
    gather = Collective("all-gather", "f32", 16 * 10**6, 16, "data", True, "loss", 2)
    grown = roofline.network([gather], large, small)
    assert grown == pytest.approx(2 * roofline.message("all-gather", 256e6, 256, large))
    total = dataclasses.replace(gather, kind="all-reduce")
    assert roofline.network([total], large, small) == pytest.approx(
        2 * roofline.message("all-reduce", 16e6, 256, large)
    )
    local = dataclasses.replace(total, group=2, whole=False)
    assert roofline.network([local], large, small) == pytest.approx(
        2 * roofline.message("all-reduce", 16e6, 2, large)
    )
    split = dataclasses.replace(gather, axes="fsdp", group=4)
    assert roofline.network([split], large, small) == pytest.approx(
        2 * roofline.message("all-gather", 16e6, 4, large)
    )


def test_efficiency_falls_where_slices_meet():
    points = roofline.scaling([TRAIN], chips.target("v5e:16x16"), 1, (8, 256, 1024))
    assert points[0].apart == pytest.approx(1)
    assert [p.count for p in points] == [8, 256, 1024]
    # 8 chips lie 2 x 4, open: 100 GB/s. A pod: 200 GB/s. Four pods add their network.
    eight = 0.01 + 2 * 7 / 8 / 100 + 2 * 3e-6
    pod = 0.01 + 2 * 255 / 256 / 200 + 32e-6
    beyond = 2 * 3 / 4 / 256 / 3.125 + 2 * 2 * 10e-6
    assert points[1].apart == pytest.approx(eight / pod)
    assert points[2].apart == pytest.approx(eight / (pod + beyond))
    assert [p.count for p in roofline.scaling([TRAIN], chips.target("v5e:4x4"), 16, (8, 16))] == [
        16
    ]


def test_price_of_a_run():
    assert roofline.chip_hours(57_000, 0.5, 256) == pytest.approx(57_000 * 0.5 * 256 / 3600)
