"""Tests that share what is dear to make run on one worker: pytest-xdist has to know their group."""

import pytest

pytestmark = pytest.mark.xdist_group("groups")


def test_a_group_is_part_of_the_name_that_workers_are_dealt(request):
    if not request.config.getoption("loadgroup", False):
        pytest.skip("one process runs all tests")
    assert request.node.nodeid.endswith("@groups")
