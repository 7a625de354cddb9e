"""Examples that are listed and cannot be read are left out, and told."""

import pytest

from jaxt2i.data.images import SYSTEM, Unreadable
from jaxt2i.data.readable import readable
from jaxt2i.data.schema import DataError


def odd(number):
    if number % 2 == 0:
        raise Unreadable(f"{number}.png", SYSTEM)
    return number * 10


def test_what_can_be_read_is_given_and_the_rest_told(capfd):
    assert list(readable(range(5), odd, "the grid")) == [(1, 10), (3, 30)]
    assert capfd.readouterr().err == (
        "data: 3 examples cannot be read and are left out of the grid (3 cannot be read), the "
        "first 0.png\n"
    )
    assert list(readable([1, 3], odd, "the grid")) == [(1, 10), (3, 30)]
    assert list(readable([], odd, "the grid")) == []
    assert capfd.readouterr().err == ""


def test_it_is_told_too_when_no_more_are_asked_for(capfd):
    found = readable(range(100), odd, "the grid")
    assert next(found) == (1, 10)
    found.close()
    assert "data: 1 examples" in capfd.readouterr().err


def test_nothing_at_all_is_an_error():
    with pytest.raises(DataError, match=r"none of 2 examples for the grid .*the first 0\.png"):
        list(readable([0, 2], odd, "the grid"))


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        list(readable([0], lambda n: 1 // n, "the grid"))
