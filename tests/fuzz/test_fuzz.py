"""No damaged file ends in a traceback, hangs, or changes silently what is read of it.

CI tries 1,000 of them; `pytest tests/fuzz --fuzz 20` twenty times as many, all of them others, and
`--fuzz-only CASE:SEED` the one that failed.
"""

import collections

import pytest

from tests.fuzz import engine, readers


def test_there_are_a_thousand():
    assert sum(case.count for case in readers.CASES) >= 1000


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("case", readers.CASES, ids=lambda case: case.name)
def test_damaged_files(case, tmp_path, request):
    only = request.config.getoption("--fuzz-only")
    seeds = range(case.count * request.config.getoption("--fuzz"))
    if only:
        name, _, seed = only.rpartition(":")
        if name != case.name:
            pytest.skip(f"--fuzz-only {only}")
        seeds = [int(seed)]
    valid = tmp_path / "valid"
    files, whole = engine.prepared(case, valid)
    seen = collections.Counter(
        engine.tried(case, whole, valid, files, seed, tmp_path / "damaged") for seed in seeds
    )
    assert only or set(seen) != {"all"}, "nothing of the damage is noticed"
