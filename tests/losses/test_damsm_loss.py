"""The matching of words and regions, against loops and over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxt2i.engine import mesh
from jaxt2i.losses import damsm

LENGTHS = np.array([5, 1, 3, 4, 2, 5, 3, 1])


def inputs(batch=8, regions=6, words=5, width=4):
    rng = np.random.default_rng(0)
    mask = np.arange(words) < LENGTHS[:batch, None]
    w = rng.standard_normal((batch, words, width)).astype(np.float32) * mask[..., None]
    v = rng.standard_normal((batch, 2, regions // 2, width)).astype(np.float32)
    code, sentence = rng.standard_normal((2, batch, width)).astype(np.float32)
    return v, code, w, sentence, mask


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize("divide", [False, True])
def test_word_scores_are_those_of_one_pair_at_a_time(divide):
    v, _, w, _, mask = inputs()
    v = v.reshape(8, -1, 4)
    got = damsm.word_scores(v, w, mask, damsm.Gammas(divide=divide))
    for j in range(8):
        for i in range(8):
            words = w[i, : LENGTHS[i]]
            share = softmax(4 * softmax(v[j] @ words.T, 1), 0)  # over words, then over regions
            found = share.T @ v[j]
            norms = np.linalg.norm(found, axis=1) * np.linalg.norm(words, axis=1)
            want = np.log(np.exp(5 * (found * words).sum(1) / norms).sum())
            want = 10 * (want / 5 if divide else want)
            assert got[j, i] == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_padding_has_no_gradient_and_makes_none_infinite():
    v, code, w, sentence, mask = inputs()
    gradient = jax.grad(lambda w: damsm.damsm(v, code, w, sentence, mask)[0])(w)
    assert np.isfinite(gradient).all()
    assert not np.any(np.asarray(gradient)[~mask])


def test_pictures_of_a_class_are_no_negatives_for_each_other():
    scores = jnp.array([[1.0, 9.0, 2.0], [3.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    by_picture, by_caption = damsm.matching(scores, jnp.array([7, 7, 1]))
    rows = [np.log(np.exp([1, 2]).sum()) - 1, np.log(np.exp([1, 0]).sum()) - 1]
    rows.append(np.log(np.exp([0, 1, 2]).sum()) - 2)
    assert by_picture == pytest.approx(np.mean(rows), rel=1e-5)
    columns = [np.log(np.exp([1, 0]).sum()) - 1, np.log(np.exp([1, 1]).sum()) - 1]
    columns.append(np.log(np.exp([2, 0, 2]).sum()) - 2)
    assert by_caption == pytest.approx(np.mean(columns), rel=1e-5)


def test_negatives_come_from_all_devices():
    given = inputs()
    want, logs = damsm.damsm(*given)
    on = NamedSharding(mesh.make(8, 1, 1), P("data"))
    got, others = jax.jit(damsm.damsm)(*(jax.device_put(x, on) for x in given))
    assert got == pytest.approx(float(want), rel=1e-5)
    assert {k: float(v) for k, v in others.items()} == pytest.approx(
        {k: float(v) for k, v in logs.items()}, rel=1e-4
    )
