import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxt2i.verify.check import check, judged, of_reference, wide_limit
from jaxt2i.verify.compute import compiled
from jaxt2i.verify.golden import Case, compare


def case(output, limit=1e-3, **info):
    return Case("c", {}, {"out_x": output}, {"out_x": {"abs": 0.0, "rel_peak": limit}}, info)


class Folder:
    """A folder of one case."""

    def __init__(self, of):
        self.of = of

    def case(self, name):
        return self.of


def lines(of, run):
    return list(check(Folder(of), "f/c", "c", lambda golden, case: {"out_x": run()}))


def test_a_kink_is_what_float32_alone_gets_wrong_in_few_entries():
    # 1e8 + 1 is a kink: float32 cannot tell on which side of 1e8 it is.
    big = np.full(100, 2e8, np.float32)
    big[0] = 1e8

    def run():
        above = compiled(lambda x, one, large: ((x + one) > large).astype(np.float32))
        return np.asarray(above(big, np.float32(1), np.float32(1e8)))

    (line,) = lines(case(np.ones(100, np.float32)), run)
    assert line.status == "kink"
    assert "float32 off by 1.0e+00 of peak in 1 of 100 entries, float64 by 0.0e+00" in line.note


def test_a_wrong_formula_fails_in_both():
    wrong = lambda: np.asarray(compiled(lambda x: x)(np.full(9, 1.1, np.float32)))  # noqa: E731
    (line,) = lines(case(np.ones(9, np.float32)), wrong)
    assert line.status == "FAIL"
    assert "the float64 limit is 1.0e-05" in line.note


@pytest.mark.parametrize(("wrong", "status"), [(1, "kink"), (5, "kink"), (6, "FAIL")])
def test_a_kink_is_confined(wrong, status):
    one = np.ones(100, np.float32)
    off = np.where(np.arange(100) < wrong, 1.1, 1)
    narrow = compare(one, off, {"abs": 0.0, "rel_peak": 1e-4})
    assert judged(narrow, compare(one, one, {"abs": 0.0, "rel_peak": 1e-5}))[0] == status


@pytest.mark.parametrize(("steep", "status"), [(3e6, "kink"), (0.0, "FAIL")])
def test_many_entries_may_hang_on_one_decision(steep, status):
    # What float32 is off by is a step that lies between 1 and what float32 makes of it.
    def run(golden, case):
        def made(x):
            off = jnp.where(jnp.float32(1) + jnp.float32(1e-9) > 1, 0.0, 0.1)
            return 1 + off + steep * (x - 1)

        return {"out_x": np.asarray(compiled(made)(case.inputs["in_x"]))}

    of = case(np.ones(9, np.float32))
    of = dataclasses.replace(of, inputs={"in_x": np.ones(9, np.float32)})
    (line,) = check(Folder(of), "f/c", "c", run)
    assert line.status == status
    assert ("inputs off by one rounding" in line.note) == (status == "kink")


def test_a_single_number_is_no_kink():
    limit = {"abs": 0.0, "rel_peak": 1e-4}
    narrow, wide = compare(np.ones(()), 1.1, limit), compare(np.ones(()), 1.0, limit)
    assert judged(narrow, wide)[0] == "FAIL"


def test_float64_limits():
    two = np.full(3, 2, np.float32)
    assert wide_limit(case(two), "out_x") == {"abs": 2e-5, "rel_peak": 0.0}
    # Its own limit, where that is less; integers keep theirs.
    assert wide_limit(case(two, 1e-6), "out_x")["rel_peak"] == 1e-6
    assert wide_limit(case(np.ones(3, np.int32), 0.0), "out_x")["rel_peak"] == 0.0
    # What a folder measured of its own reference widens no limit: it makes a kink (below).
    known = case(two, measured={"out_x": [None, 1e-4]})
    assert wide_limit(known, "out_x") == {"abs": 2e-5, "rel_peak": 0.0}


@pytest.mark.parametrize(
    ("off", "measured", "status"),
    [
        (1e-3, {"out_x": [None, 1e-3]}, "kink"),
        (1e-3, {"*": [1.0, 1e-3]}, "kink"),
        (1.2e-3, {"out_x": [None, 1e-3], "*": [None, 0.1]}, "FAIL"),
        (1e-3, None, "FAIL"),
        (1e-3, {"out_x": [1e-3]}, "FAIL"),
        (1e-6, {"*": [1.0, 1e-3]}, "pass"),
    ],
)
def test_float64_is_as_far_from_a_float32_reference_as_that_is_from_float64(off, measured, status):
    of = Folder(case(np.ones(3, np.float32), limit=0.01, measured=measured))
    made = {"out_x": np.array([1, 1, 1 - off])}
    (line,) = check(of, "f/c", "c", lambda golden, case: made, wide=True)
    assert (line.status, "its float64" in line.note) == (status, status == "kink")
    narrow = compare(np.ones(30), np.where(np.arange(30) < 1, 1.1, 1), {"abs": 0, "rel_peak": 0.01})
    wide = compare(np.ones(3), made["out_x"], {"abs": 1e-5, "rel_peak": 0.0})
    own = of_reference(of.of, "out_x")
    assert judged(narrow, wide, own)[0] == ("FAIL" if status == "FAIL" else "kink")


def test_what_the_reference_is_off_excuses_no_other_array():
    # A limit of its own below 1e-5, nothing recorded; and integers, whatever is recorded.
    near = Folder(case(np.ones(3, np.float32), limit=1e-8))
    made = {"out_x": np.full(3, 1 + 1e-6)}
    (line,) = check(near, "f/c", "c", lambda golden, case: made, wide=True)
    assert line.status == "FAIL"
    whole = Folder(case(np.full(3, 255, np.uint8), 0.0, measured={"*": [None, 0.1]}))
    made = {"out_x": np.full(3, 254, np.uint8)}
    (line,) = check(whole, "f/c", "c", lambda golden, case: made, wide=True)
    assert line.status == "FAIL"


def test_integers_that_rounding_makes_are_judged_in_float32():
    # 0.1 + 0.3 is 0.4 in float32, and more in float64.
    def run():
        over = compiled(lambda x, y, z: (x + y > z).astype(np.int32))
        made = over(np.full(3, 0.1, np.float32), np.float32(0.3), np.float32(0.4))
        return np.asarray(made)

    folder = Folder(case(np.asarray(run())))
    (line,) = check(folder, "f/c", "c", lambda golden, case: {"out_x": run()}, wide=True)
    assert (line.status, "judged in float32" in line.note) == ("pass", True)
    wrong = Folder(case(2 + np.asarray(run())))
    (line,) = check(wrong, "f/c", "c", lambda golden, case: {"out_x": run()}, wide=True)
    assert line.status == "FAIL"
