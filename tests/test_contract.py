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
    # That which does most with a batch: matching of words within it, running statistics. Groups of
    # examples have a test of their own (tests/nn/test_norms.py); the others with pytest -m full.
    "eight": ("dm_gan",),
    # That a turn leaves the others' networks alone is the engine's doing (tests/engine).
    "alone": ("df_gan", "dm_gan"),
    # Those whose promise is kept within a few seconds; the others' with pytest -m full.
    "learning": ("df_gan", "attngan", "damsm"),
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
        self.spec = run.batch_spec()
        self.shapes = states.shapes(method, self.spec)
        with listening() as self.called:
            self.programs = training.compile_step(
                method, self.rules, self.layout, self.spec, self.shapes
            )
        self.shardings = tuple(map(self.layout.shardings, self.shapes))

    @functools.cached_property
    def start(self):
        """(State, frozen weights) before the first step, on the host: a step takes its state's."""
        return jax.device_get(
            states.create(self.method, self.spec, self.run.config.seed, self.shardings)
        )

    def fresh(self, sgd=False):
        state, frozen = self.start
        if sgd:
            told = {name: x._replace(sgd=np.ones_like(x.sgd)) for name, x in state.opt.items()}
            state = state.replace(opt=told)
        return jax.device_put((state, frozen), self.shardings, may_alias=False)

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
    bad = [k for k, v in metrics.items() if not np.isfinite(v).all()]
    assert metrics["finite"].all(), f"a loss or gradient of the first step is not finite: {bad}"
    assert not bad, "of what the losses give beside"


def test_trained_networks_change_and_extras_stay_finite(name):
    before, _ = table(name, 1).start
    after, _ = played(name, 1, False)
    for net in opened(name).method.trained:
        assert any(moved(before.params[net], after.params[net])), (
            f"one step leaves all weights of {net!r} as they were: is it in the `nets` of a "
            "Player, and does that player's loss depend on it? Else it belongs into `frozen`"
        )
    for net, collections in after.extra.items():
        finite = all(np.isfinite(x).all() for x in jax.tree.leaves(collections))
        assert finite, f"a collection of {net!r} is not finite after one step"


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
    apart = guard.differences(name, found)
    assert not apart, "; ".join(apart)


def test_a_step_costs_what_is_kept(name, request):
    guarded(request, name, 1)


def test_frozen_networks_are_those_that_no_player_trains(name):
    kept = set(table(name, 1).shapes[1])
    assert kept == set(opened(name).method.frozen), "`frozen` names others than those kept apart"


@pytest.fixture
def alone():
    """Marks what is traced player by player."""


def test_other_players_networks_stay(name, alone):
    """A player's turn hands on the very arrays of the networks that are not its own."""
    run, at = opened(name), table(name, 1)
    for player in at.method.players:
        method = dataclasses.replace(at.method, players=(dataclasses.replace(player, every=1),))
        state, frozen = at.shapes
        state = state.replace(opt={player.name: state.opt[player.name]})
        program = steps.make(method, at.rules)[1]
        traced = jax.make_jaxpr(lambda s, f, b, run=program: run(s, f, b)[0].params)(
            state, frozen, at.spec
        )
        given = dict(zip(jax.tree.leaves(numbered(state)), traced.jaxpr.invars, strict=False))
        places = zip(jax.tree.leaves(numbered(state).params), traced.jaxpr.outvars, strict=True)
        kept = [given[place] is out for place, out in places]
        owner = [net for net in sorted(state.params) for _ in jax.tree.leaves(state.params[net])]
        for net in run.method.trained:
            same = [k for k, of in zip(kept, owner, strict=True) if of == net]
            if net in player.nets:
                assert not any(same), f"player {player.name!r} leaves weights of its {net!r}"
            else:
                assert all(same), f"player {player.name!r} changes {net!r}, which is not its own"


def test_networks_that_train_and_score_are_named(name):
    run = opened(name)
    if not (run.method.score and run.method.sampler):
        pytest.skip("scores no pictures of its own")
    at = table(name, 1)

    def score(state, frozen, batch):
        ctx = states.context(run.method, state, frozen, key=jax.random.key(1))
        return run.method.score(ctx, batch)

    def read(state, frozen, batch):
        text = run.method.sampler.text or (lambda ctx, batch: None)
        return text(states.context(run.method, state, frozen, key=None), batch)

    with listening() as scoring:
        jax.eval_shape(score, *at.shapes, at.spec)
    with listening() as reading:
        jax.eval_shape(read, *at.shapes, run.row_spec())
    shared = (scoring & at.called & set(run.method.frozen)) - reading
    assert shared == set(run.method.guided_by), (
        f"losses and score both show pictures to {sorted(shared)}, and Method.guided_by is "
        f"{run.method.guided_by}: it must name them, since scores of a network that trains the "
        "run flatter it"
    )


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
    assert "all-reduce(" in text, "gradients are not summed over devices"
    assert "all-to-all(" not in text, "examples change devices: what reorders or splits the batch?"


def test_eight_devices_exchange_what_the_costs_say(name, eight, request):
    guarded(request, name, 8)


@functools.cache
def drawer(name, count, chunk):
    layout = mesh.Layout(mesh.make(count, 1, 1, jax.devices()[:count]))
    weights = tuple(jax.device_put(t, layout.everywhere) for t in table(name, 1).start)
    return draw.Drawer(method=opened(name).method, layout=layout, chunk=chunk), weights


@functools.cache
def requests(name):
    """Six held-out rows, each with a seed of its own."""
    run = opened(name)
    source = run.source("val")
    words, needs = run.words(schema.names_of(source)), run.method.sampler.needs
    rows = run.rows_of(source, range(6))
    return [draw.Request(words.arrays(row, needs), n, about=n) for n, row in enumerate(rows)]


def drawn(name, numbers, count=1, chunk=4):
    """{number: its outputs} of some of these rows, on so many devices."""
    by, weights = drawer(name, count, chunk)
    found = by.stream(*weights, [requests(name)[n] for n in numbers])
    return {request.about: out for request, out in found}


def test_a_picture_depends_on_its_row_and_seed_alone(name):
    """To the bit: alone, in three, and among six at another place."""
    if opened(name).method.sampler is None:
        pytest.skip("draws nothing")
    alone, three, six = (drawn(name, rows) for rows in ([1], [0, 1, 2], [3, 4, 5, 2, 1, 0]))
    assert any(moved(three[0], three[1])), "two rows of different seeds are drawn the same"
    floats = [x for x in jax.tree.leaves(three) if x.dtype.kind == "f"]
    assert all(np.isfinite(x).all() for x in floats), "what is drawn is not finite"
    assert not any(moved(alone[1], three[1])), "alone a row is drawn otherwise than with others"
    for number in range(3):
        assert not any(moved(three[number], six[number])), (
            f"row {number} is drawn otherwise among three than among six: does `draw` use anything "
            "but its row, its key and its controls?"
        )


def test_four_devices_draw_what_one_draws(name, eight):
    """To the bit."""
    if opened(name).method.sampler is None:
        pytest.skip("draws nothing")
    one, four = drawn(name, [0, 1, 2]), drawn(name, [2, 1, 0], count=4)
    for number in range(3):
        assert not any(moved(one[number], four[number])), number


def test_needs_is_complete_and_without_surplus(name):
    """A batch of exactly `needs` is enough, and every key of it is read."""
    at = table(name, 1)
    assert set(at.spec) == set(opened(name).method.needs), "a batch holds others than `needs`"
    read = set()
    for program in at.programs.play.values():
        _, _, placed = program.input_shardings[0]  # None: no result depends on it
        read |= {key for key, where in placed.items() if where is not None}
    # A causal text tower has no use for the mask that goes with its tokens; others do.
    spare = {key for key in set(at.spec) - read if not key.endswith("token_mask")}
    assert not spare, f"Method.needs names {sorted(spare)}, which no loss reads"


def test_unknown_settings_are_refused(name):
    """`jaxt2i.config.fields(Model, config.model, "config.model")` reads a section and does so."""
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
