"""A run that is continued with another mixture of collections."""

import json

import pytest

from jaxt2i.data import order as orders
from jaxt2i.data.sources import make_source, mixture
from jaxt2i.run import own, settings
from tests.data import shards
from tests.data.sources.test_web import config

BATCH, LANES = 4, 2


def order(data):
    made = make_source(data, 16, "train")
    at = made.order(3, BATCH)
    return [made.name(at(position)) for position in range(280)]


def mixed(root, *mix, past=()):
    data = config(root, lanes=LANES)
    data.web.update(mix=mix, past=past)
    return data


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("mixed")
    for name, count in (("a", 60), ("b", 40), ("c", 20)):
        shards.collection(root / name, files=4, count=count)
    return root


def of(names, which):
    return [name for name in names if f"/{which}/" in name]


def test_before_the_change_the_old_order_from_it_on_the_new_mixture(root, monkeypatch):
    monkeypatch.setattr(orders, "BLOCK", 8)
    old = order(mixed(root, ("a", 1.0), ("b", 1.0)))
    position = 120
    past = ((position, ((f"{root}/a", 1.0), (f"{root}/b", 1.0))),)
    new = order(mixed(root, ("c", 1.0), ("a", 3.0), past=past))
    assert new[:position] == old[:position]
    after = new[position:]
    share = len(of(after, "a")) / len(after)
    assert not of(after, "b")
    assert share == 0.75
    assert len(set(of(new, "a"))) == len(of(new, "a")) > 150, "none of what stays comes twice"
    assert order(mixed(root, ("c", 1.0), ("a", 3.0), past=past)) == new
    same = ((position, ((f"{root}/a", 1.0), (f"{root}/b", 1.0))),)
    heavier = order(mixed(root, ("a", 3.0), ("b", 1.0), past=same))
    assert heavier[:position] == old[:position]
    assert heavier[position:] != old[position:]


def test_the_past_is_what_was_trained_on():
    a, b, c = ((("a", 1.0),), (("b", 1.0),), (("c", 1.0),))
    assert mixture.changed((), a, a, 80) == ()
    assert mixture.changed((), a, b, 0) == (), "nothing was trained yet"
    assert mixture.changed((), a, b, 80) == ((80, a),)
    assert mixture.changed(((80, a),), b, b, 160) == ((80, a),)
    assert mixture.changed(((80, a),), b, c, 160) == ((80, a), (160, b))
    assert mixture.changed(((80, a),), b, c, 80) == ((80, a),), "b was never trained on"
    assert mixture.changed(((80, a),), b, a, 80) == (), "back to what it was"
    assert mixture.changed(((80, a), (160, b)), c, b, 120) == ((80, a),), "an earlier checkpoint"


def test_a_continued_run_remembers_its_mixtures(root, tmp_path, capsys):
    from configs import common

    def goes_on(mix, step):
        now = common.base()
        now.batch_size = BATCH
        now.data = mixed(root, *mix)
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True, exist_ok=True)
        now = own.prepared(now, tmp_path)
        settings.write_config(tmp_path, now, "train")
        return now.data

    goes_on([("a", 1.0), ("b", 1.0)], 10)
    second = goes_on([("a", 1.0), ("c", 1.0)], 30)
    said = capsys.readouterr().out
    assert "the mixture changes at step 30, position 120" in said
    assert f"50.0% {root}/b; from there" in said
    third = goes_on([("a", 1.0), ("c", 1.0)], 50)
    assert third.web.past == second.web.past
    assert "mixture" not in capsys.readouterr().out
    kept = json.loads((tmp_path / "config.json").read_text())["data"]["web"]["past"]
    assert kept == [[120, [[f"{root}/a", 1.0], [f"{root}/b", 1.0]]]]
    assert order(third)[:120] == order(mixed(root, ("a", 1.0), ("b", 1.0)))[:120]
    fourth = goes_on([("b", 1.0)], 60)
    assert [until for until, _ in fourth.web.past] == [120, 240]
    assert order(fourth)[:240] == order(third)[:240]
