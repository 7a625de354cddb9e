"""The verdict on memory, and the configuration lines that it advises."""

import types

import pytest
from ml_collections import ConfigDict

from jaxt2i.planning import memory
from jaxt2i.planning.compiled import Program, needed
from jaxt2i.run import chips
from jaxt2i.run.chips import GIB

V5E = chips.CHIPS["v5e"]
HELD = {"parameters": 4 * GIB, "optimiser": 8 * GIB, "averages": 4 * GIB, "frozen": GIB}

SMALL = {"parameters": GIB // 2, "optimiser": GIB // 2, "averages": 0}


def plan(batch=128, accumulate=1, fsdp=1, count=16, sharding=(), remat=(), able=True):
    settings = {"batch_size": batch, "accumulate": accumulate}
    config = ConfigDict(settings | {"sharding": sharding, "remat": remat})
    nets = {"g": types.SimpleNamespace(remat=None) if able else object()}
    target = chips.of_size(V5E, count)
    axes = {"data": count // fsdp, "fsdp": fsdp, "tensor": 1}
    method = types.SimpleNamespace(nets=nets)
    return types.SimpleNamespace(config=config, target=target, axes=axes, method=method)


def test_what_fits_needs_no_advice():
    program = Program("train", 1, 0.0, temporary=2 * GIB, code=GIB // 4, peak=5 * GIB)
    found = memory.memory({"parameters": 2 * GIB}, [program], V5E)
    assert found.fits
    assert found.verdict() == "fits: 5.00 of 15.75 GiB, 10.75 GiB to spare"
    assert memory.advice(found, plan()) == []


def test_the_largest_program_decides():
    small, large = (Program(n, 1, 0.0, peak=p * GIB) for n, p in (("train", 3), ("train/16", 20)))
    found = memory.memory(HELD, [small, large], V5E)
    assert not found.fits
    assert found.verdict() == "does not fit: 20.00 of 15.75 GiB, 4.25 GiB too much"


def test_a_state_that_is_too_big_is_split_as_little_as_will_do():
    found = memory.Memory(HELD, 2 * GIB, 0, 19 * GIB, V5E.hbm)
    lines = memory.advice(found, plan())
    assert lines[0].startswith('--config.mesh.fsdp=2 with config.sharding = ((".", "fsdp"),)')
    assert "16.00 GiB of parameters, moments and averages become about 8.00" in lines[0]
    already = memory.advice(found, plan(fsdp=4, sharding=((".", "fsdp"),)))
    assert already[0].startswith("--config.mesh.fsdp=8: 16.00 GiB")


def test_activations_that_are_too_big_are_cut_or_computed_again():
    found = memory.Memory(SMALL, 40 * GIB, 0, 41 * GIB, V5E.hbm)
    lines = memory.advice(found, plan(batch=128, accumulate=2))
    assert any(x.startswith('--config.remat=\'((".*", "full"),)\': keeps') for x in lines)
    # 14.75 GiB are left for 40: three parts would do, four divide the 8 rows of a chip.
    assert any(x.startswith("--config.accumulate=8: 2 images a chip at once") for x in lines)
    assert any(x.startswith("--config.batch_size=32: 2 images a chip") for x in lines)
    assert "--topology with 64 chips instead of 16, for the same batch" in lines
    for other in (plan(remat=((".*", "products"),)), plan(able=False)):
        assert not any("remat" in x for x in memory.advice(found, other))


def test_one_row_a_chip_and_nothing_to_split_needs_another_chip():
    found = memory.Memory(SMALL, 40 * GIB, 0, 41 * GIB, V5E.hbm)
    (line,) = memory.advice(found, plan(batch=16, fsdp=16, able=False))
    assert "a chip with more memory" in line


@pytest.mark.parametrize(
    ("words", "peak"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (20.50G) exceeds available HBM (15.75G).",
            37.5,
        ),
        ("RESOURCE_EXHAUSTED: Used 18.25G of 15.75G hbm. Exceeded capacity by 2.50G.", 18.25),
    ],
)
def test_what_the_compiler_says_when_it_gives_up(words, peak):
    program = Program("train", 1, 0.0, peak=needed(words), shortfall=words)
    found = memory.memory(HELD, [program], V5E)
    assert found.peak == pytest.approx(peak * GIB)
    assert not found.fits
