"""What every method passes, whoever wrote it.

    pytest tests/test_contract.py --method my_pkg.my_gan

runs it on any module with build(config); its configuration is configs/my_gan.py:tiny, or the one
named behind an equals sign: --method my_pkg.my_gan=path/to/config.py:tiny.
"""

import contextlib
import dataclasses
import functools
import gc
import itertools
import pkgutil
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import jaxt2i.systems
from benchmarks import guard
from jaxt2i.config import ConfigError
from jaxt2i.data import schema
from jaxt2i.engine import draw, mesh
from jaxt2i.engine import state as states
from jaxt2i.engine import step as steps
from jaxt2i.engine.method import Ctx
from jaxt2i.run import open as runs
from jaxt2i.run import placement, settings, training
from jaxt2i.run import train as training_of
from jaxt2i.run.open import load_method

CHOSEN = {
    # Those that do most with a batch: negatives, matching of words, running statistics. Groups of
    # examples have a test of their own (tests/nn/test_norms.py); the others with pytest -m full.
    "eight": ("clip", "dm_gan"),
    # Those whose promise is kept within a few seconds; the others' with pytest -m full.
    "learning": ("df_gan", "attngan", "dm_gan", "clip", "damsm", "recogniser"),
}


def pytest_generate_tests(metafunc):
    given = metafunc.config.getoption("--method") or [
        f"jaxt2i.systems.{m.name}" for m in pkgutil.iter_modules(jaxt2i.systems.__path__)
    ]
    chosen = next((names for use, names in CHOSEN.items() if use in metafunc.fixturenames), None)
    if chosen and not metafunc.config.getoption("--method"):
        marks = {n: [] if n.rpartition(".")[2] in chosen else [pytest.mark.full] for n in given}
    else:
        marks = {n: [] for n in given}
    # One method after the other, each on one worker: its tests share compiled programs.
    groups = [pytest.param(n, id=n, marks=[pytest.mark.xdist_group(n), *marks[n]]) for n in given]
    metafunc.parametrize("name", groups, scope="module")


@functools.cache
def configuration(name):
    module, _, file = name.partition("=")
    file = file or f"configs/{module.rpartition('.')[2]}.py:tiny"
    path, _, preset = file.partition(":")
    return settings.preset(path, preset)


@functools.cache
def opened(name):
    config = configuration(name)
    return runs.open_run(config, runs.known(config)[0])


@functools.cache
def batches(name):
    run = opened(name)
    data = run.pipeline(run.source("train"), run.config.batch_size, run.method.needs)
    return (data.batch_at(0),)


class Either(NamedTuple):
    """The state of an optimiser that can be told to be SGD: one compiled step serves as both."""

    sgd: jax.Array
    own: optax.OptState


def either(tx):
    """A player's own optimiser, or SGD: Adam's first steps are signs, which amplify rounding."""

    def init(params):
        return Either(jnp.zeros((), bool), tx.init(params))

    def update(grads, state, params=None):
        updates, own = tx.update(grads, state.own, params)
        plain = jax.tree.map(lambda g, u: jnp.where(state.sgd, -1e-3 * g, u), grads, updates)
        return plain, state._replace(own=own)

    return optax.GradientTransformation(init, update)


def with_either(method):
    """The method with optimisers that can be told to be SGD."""
    players = tuple(dataclasses.replace(p, tx=either(p.tx)) for p in method.players)
    return dataclasses.replace(method, players=players)


class Table:
    """A method on a mesh, with its compiled step."""

    def __init__(self, run, method, shape, count):
        self.run, self.method = run, method
        self.layout = placement.layout(
            mesh.make(*shape, jax.devices()[:count]), ((".", "fsdp"),), 0.02
        )
        c = run.config
        placement.check_batch(c.batch_size, 1, self.layout.mesh)
        self.rules = steps.Rules(c.seed, c.batch_size, 100)
        spec = run.batch_spec()
        shapes = states.shapes(method, spec)
        self.shapes = shapes[0]
        self.programs = training.compile_step(method, self.rules, self.layout, spec)
        self.shardings = tuple(map(self.layout.shardings, shapes))
        self.spec = spec

    def fresh(self, sgd=False):
        state, frozen = states.create(self.method, self.spec, self.run.config.seed, self.shardings)
        if sgd:
            told = {name: x._replace(sgd=jnp.ones_like(x.sgd)) for name, x in state.opt.items()}
            state = jax.device_put(state.replace(opt=told), self.shardings[0])
        return state, frozen

    def play(self, state, frozen, rows, number):
        batch = self.layout.put_batch(rows)
        for every, program in self.programs.play.items():
            if number % every == 0:
                state, metrics = program(state, frozen, batch)
        return state, metrics


@functools.cache
def table(name, count):
    """On so many devices. No default: a cache holds what is called alike, not what means alike."""
    run = opened(name)
    return Table(run, with_either(run.method), (count, 1, 1), count)


@functools.cache
def played(name, count, sgd):
    at = table(name, count)
    state, frozen = at.fresh(sgd)
    state, metrics = at.play(state, frozen, batches(name)[0], 0)
    return jax.device_get(state), jax.device_get(metrics)


@functools.cache
def untouched(name):
    return jax.device_get(table(name, 1).fresh())


HELD = []


@pytest.fixture(autouse=True)
def one_method_at_a_time(name):
    """What a method's tests share goes when the next method comes: together it is gigabytes."""
    if name not in HELD:
        for function in (
            configuration,
            opened,
            batches,
            table,
            played,
            untouched,
            turns,
            drawer,
            requests,
        ):
            function.cache_clear()
        jax.clear_caches()
        gc.collect()
        HELD[:] = [name]


def moved(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return [bool(np.any(np.asarray(x) != np.asarray(y))) for x, y in leaves]


def test_one_step_is_finite(name):
    _, metrics = played(name, 1, False)
    assert metrics["finite"].all()
    assert all(np.isfinite(v).all() for v in metrics.values())


def test_trained_networks_change_and_extras_stay_finite(name):
    before, _ = untouched(name)
    after, _ = played(name, 1, False)
    for net in opened(name).method.trained:
        assert any(moved(before.params[net], after.params[net])), net
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(after.extra))


def guarded(request, name, count):
    """Compares what a step costs, or keeps it."""
    if request.config.getoption("--method"):
        pytest.skip("figures are kept of this repository's systems")
    writes = request.config.getoption("--guard-write")
    if count > 1 and not writes and "exchanged_bytes" not in guard.kept_of(name):
        pytest.skip("no figure of several devices is kept")
    found = guard.costs(table(name, count).programs.play, count)
    if writes:
        return guard.write(name, found)
    assert not guard.differences(name, found)


def test_a_step_costs_what_is_kept(name, request):
    guarded(request, name, 1)


@contextlib.contextmanager
def listening():
    """The names of the networks that are called meanwhile."""
    called, plain = set(), Ctx.__call__

    def listened(self, net, *args, **kw):
        called.add(net)
        return plain(self, net, *args, **kw)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Ctx, "__call__", listened)
        yield called


@functools.cache
def turns(name):
    """Every player's turn alone, traced: [(player, state, program, networks it called)]."""
    run = opened(name)
    shapes = states.shapes(run.method, run.batch_spec())
    rules = steps.Rules(run.config.seed, run.config.batch_size, 100)
    out = []
    for player in run.method.players:
        alone = dataclasses.replace(run.method, players=(dataclasses.replace(player, every=1),))
        state = shapes[0].replace(opt={player.name: shapes[0].opt[player.name]})
        program = steps.make(alone, rules)[1]
        with listening() as called:
            traced = jax.make_jaxpr(lambda s, f, b, run=program: run(s, f, b)[0].params)(
                state, shapes[1], run.batch_spec()
            )
        out.append((player, state, traced, called))
    return out


def test_frozen_networks_and_other_players_networks_stay(name):
    """A player's turn hands on the very arrays of the networks that are not its own."""
    run = opened(name)
    assert set(states.shapes(run.method, run.batch_spec())[1]) == set(run.method.frozen)
    for player, state, traced, _ in turns(name):
        given = dict(zip(jax.tree.leaves(numbered(state)), traced.jaxpr.invars, strict=False))
        places = zip(jax.tree.leaves(numbered(state).params), traced.jaxpr.outvars, strict=True)
        kept = [given[place] is out for place, out in places]
        owner = [net for net in sorted(state.params) for _ in jax.tree.leaves(state.params[net])]
        for net in run.method.trained:
            same = [k for k, of in zip(kept, owner, strict=True) if of == net]
            assert not any(same) if net in player.nets else all(same), (player.name, net)


def test_networks_that_train_and_score_are_named(name):
    run = opened(name)
    if not (run.method.score and run.method.sampler):
        pytest.skip("scores no pictures of its own")
    state, frozen = states.shapes(run.method, run.batch_spec())
    spec = run.batch_spec()

    def score(state, frozen, batch):
        ctx = states.context(run.method, state, frozen, key=jax.random.key(1))
        return run.method.score(ctx, batch)

    def read(state, frozen, batch):
        text = run.method.sampler.text or (lambda ctx, batch: None)
        return text(states.context(run.method, state, frozen, key=None), batch)

    with listening() as scoring:
        jax.eval_shape(score, state, frozen, spec)
    with listening() as reading:
        jax.eval_shape(read, state, frozen, run.row_spec())
    training = set().union(*(called for *_, called in turns(name)))
    shared = (scoring & training & set(run.method.frozen)) - reading
    assert shared == set(run.method.guided_by)


def numbered(tree):
    """Every leaf's place among the leaves."""
    return jax.tree.unflatten(jax.tree.structure(tree), range(len(jax.tree.leaves(tree))))


@pytest.fixture
def eight():
    """Marks what is seen on eight devices."""


@pytest.fixture
def learning():
    """Marks what takes a whole small run."""


def test_eight_devices_equal_one(name, eight):
    one, logs = played(name, 1, True)
    many, others = played(name, 8, True)
    for key in logs:
        np.testing.assert_allclose(logs[key], others[key], rtol=2e-3, atol=2e-5, err_msg=key)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-5)


def test_data_parallel_step_moves_no_examples(name, eight):
    """The gradients are reduced; a gather is for losses over the whole batch, an exchange never."""
    text = table(name, 8).programs.play[1].as_text()
    assert "all-reduce(" in text
    assert "all-to-all(" not in text


def test_eight_devices_exchange_what_the_costs_say(name, eight, request):
    guarded(request, name, 8)


@functools.cache
def drawer(name, count, chunk):
    layout = mesh.Layout(mesh.make(count, 1, 1, jax.devices()[:count]))
    weights = tuple(jax.device_put(t, layout.everywhere) for t in untouched(name))
    return draw.Drawer(method=opened(name).method, layout=layout, chunk=chunk), weights


@functools.cache
def requests(name):
    """Nineteen held-out rows, each with a seed of its own."""
    run = opened(name)
    source = run.source("val")
    words, needs = run.words(schema.names_of(source)), run.method.sampler.needs
    rows = run.rows_of(source, range(19))
    return [draw.Request(words.arrays(row, needs), n, about=n) for n, row in enumerate(rows)]


def drawn(name, numbers, count=1, chunk=4):
    """{number: its outputs} of some of these rows, on so many devices."""
    by, weights = drawer(name, count, chunk)
    found = by.stream(*weights, [requests(name)[n] for n in numbers])
    return {request.about: out for request, out in found}


def test_a_picture_depends_on_its_row_and_seed_alone(name):
    """To the bit: alone, in three, among nineteen, on one device and on four."""
    if opened(name).method.sampler is None:
        pytest.skip("draws nothing")
    alone, three = drawn(name, [1]), drawn(name, [0, 1, 2])
    many, others = drawn(name, [*range(3, 19), 2, 1, 0]), drawn(name, [2, 1, 0], count=4)
    assert any(moved(three[0], three[1]))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(three) if x.dtype.kind == "f")
    assert not any(moved(alone[1], three[1]))
    for number in range(3):
        assert not any(moved(three[number], many[number])), number
        assert not any(moved(three[number], others[number])), number


def test_needs_is_complete_and_without_surplus(name):
    """A batch of exactly `needs` is enough, and every key of it is read."""
    run = opened(name)
    batch = run.batch_spec()
    assert set(batch) == set(run.method.needs)
    read = set()
    for _, _, traced, _ in turns(name):
        used = {id(v) for eqn in traced.jaxpr.eqns for v in eqn.invars}
        given = zip(sorted(batch), traced.jaxpr.invars[-len(batch) :], strict=True)
        read |= {key for key, var in given if id(var) in used}
    # A causal text tower has no use for the mask that goes with its tokens; others do.
    assert not {key for key in set(batch) - read if not key.endswith("token_mask")}, "never read"


def test_unknown_settings_are_refused(name):
    config = ConfigDict(configuration(name)).copy_and_resolve_references()
    config.model = ConfigDict({**config.model, "chanel_base": 1})
    with pytest.raises(ConfigError, match=r"config\.model\.chanel_base"):
        load_method(config)


@pytest.mark.slow
def test_it_learns(name, learning):
    """The method's score improves within its tiny run by the margin it promises."""
    run = opened(name)
    if not run.method.score:
        pytest.skip("has no score")
    config = run.config
    if not config.promise.margin:
        pytest.skip("promises nothing yet")
    at = table(name, 1)
    state, frozen = at.fresh()
    held_out = run.pipeline(run.source("val"), config.score_images, run.method.needs)
    rows = at.layout.put_batch(held_out.batch_at(0))

    @jax.jit
    def score(state, frozen):
        ctx = states.context(run.method, state, frozen, key=jax.random.key(1))
        return run.method.score(ctx, rows)

    def settled(state):
        """As the loop scores: with the running statistics of the averaged weights."""
        put, source = at.layout.put_batch, run.source("train")
        batches = training_of.settling(run, source, put)
        return draw.settler(run.method, config.seed)(state, frozen, batches()) if batches else state

    first = jax.device_get(score(settled(state), frozen))
    data = run.pipeline(run.source("train"), config.batch_size, run.method.needs)
    for number, batch in enumerate(itertools.islice(data.iterate(0), config.promise.steps)):
        state, _ = at.play(state, frozen, batch, number)
    last = jax.device_get(score(settled(state), frozen))
    for key, margin in config.promise.margin.items():
        gain = (last[key] - first[key]) * (1 if run.method.better[key] == "higher" else -1)
        assert gain >= margin, f"{key}: {first[key]:.4g} -> {last[key]:.4g}, promised {margin}"
